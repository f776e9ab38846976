import { randomBytes } from 'node:crypto';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError, errorMessage } from '@tunefleet/foundation';
import { z } from 'zod';

const secretsSchema = z.object({ apiKey: z.string().min(8), workerToken: z.string().min(8) });

export type Secrets = z.infer<typeof secretsSchema>;

/** Made at the first start and kept, readable by the owner alone. Keys given by the environment win and are not written down. */
export async function loadSecrets(dataDir: string, environment: NodeJS.ProcessEnv): Promise<Secrets> {
  const file = secretsFile(dataDir);
  let secrets: Secrets;
  try {
    secrets = secretsSchema.parse(JSON.parse(await readFile(file, 'utf8')));
    await chmod(file, 0o600);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) {
      throw new TunefleetError('invalid_input', `${file} cannot be used: repair it, or delete it to get new keys (${errorMessage(error)})`);
    }
    secrets = { apiKey: `tf-${randomBytes(24).toString('base64url')}`, workerToken: randomBytes(24).toString('base64url') };
    await writeFile(file, `${JSON.stringify(secrets, null, 2)}\n`, { mode: 0o600 });
  }
  return {
    apiKey: environment['TUNEFLEET_API_KEY'] || secrets.apiKey,
    workerToken: environment['TUNEFLEET_WORKER_TOKEN'] || secrets.workerToken,
  };
}

export function secretsFile(dataDir: string): string {
  return join(dataDir, 'secrets.json');
}
