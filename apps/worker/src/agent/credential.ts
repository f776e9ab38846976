import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';

export interface Credential {
  /** 32 random bytes in base64url: what speaks for this worker, and nothing else does. */
  readonly secret: string;
  /** Made just now: no control plane knows it yet. */
  readonly isNew: boolean;
}

const FILE = 'credential';
const SECRET_BYTES = 32;

/**
 * Reads the worker's secret from its folder, or makes one there, readable by the owner alone. It is on disk before it is shown to a control
 * plane, so that a worker that dies while it joins is not left with a spent token and without its credential.
 * @throws invalid_input when the file holds something else
 */
export async function loadCredential(workerDir: string): Promise<Credential> {
  const file = credentialFile(workerDir);
  let text: string;
  try {
    text = (await readFile(file, 'utf8')).trim();
    await chmod(file, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw new TunefleetError('invalid_input', `the credential of this worker cannot be read: ${errorMessage(error)}`, { cause: error });
    return { secret: await make(workerDir, file), isNew: true };
  }
  if (!/^[A-Za-z0-9_-]{43}$/.test(text)) throw new TunefleetError('invalid_input', `${file} holds no credential: delete the worker's folder and let it join as a new one`);
  return { secret: text, isNew: false };
}

export function credentialFile(workerDir: string): string {
  return join(workerDir, FILE);
}

async function make(workerDir: string, file: string): Promise<string> {
  const secret = randomBytes(SECRET_BYTES).toString('base64url');
  await mkdir(workerDir, { recursive: true });
  const unfinished = `${file}.${process.pid}`;
  const handle = await open(unfinished, 'w', 0o600);
  try {
    await handle.writeFile(secret);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(unfinished, file);
  return secret;
}
