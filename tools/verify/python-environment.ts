import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const INSTALL_TIMEOUT_MS = 30 * 60_000;

/**
 * A Python with the pinned reference libraries, made on first use under `node_modules/.cache` and kept until the pins change.
 * Packages come from whatever index pip is set up to use. TUNEFLEET_REFERENCE_PYTHON names a ready interpreter instead.
 * @returns path of the interpreter
 */
export async function referencePython(root: string): Promise<string> {
  const given = process.env['TUNEFLEET_REFERENCE_PYTHON'];
  if (given !== undefined && given !== '') return given;
  const requirements = join(root, 'tools/verify/requirements.txt');
  const key = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
  const dir = join(root, 'node_modules/.cache/reference-python', key);
  const python = join(dir, 'bin/python');
  if (existsSync(join(dir, 'complete'))) return python;
  process.stderr.write('installing torch, transformers, peft and what the benches compare with into node_modules/.cache/reference-python (once, several hundred MB) ...\n');
  await rm(dir, { recursive: true, force: true });
  await mkdir(join(dir, '..'), { recursive: true });
  await run('python3', ['-m', 'venv', dir], { timeout: INSTALL_TIMEOUT_MS });
  await run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', requirements], { timeout: INSTALL_TIMEOUT_MS, maxBuffer: 1 << 26 });
  await writeFile(join(dir, 'complete.partial'), '');
  await rename(join(dir, 'complete.partial'), join(dir, 'complete'));
  return python;
}
