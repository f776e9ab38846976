import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { weightFiles } from '@tunefleet/ml-formats';

/** Folders below which model paths may lie, or `any` for tools that run with their user's own rights. */
export type LocalRoots = 'any' | readonly string[];

export interface LocalModel {
  readonly folder: string;
  readonly revision: string;
  readonly weightBytes: number;
}

/** How much of the start of each file goes into the revision: all of the small ones, header and first tensors of the large ones. */
const HASHED_BYTES = 4 * 1024 * 1024;

/**
 * @throws TunefleetError `permission_denied` outside the allowed roots, `not_found` when there is no model folder
 */
export function findLocalModel(path: string, roots: LocalRoots): LocalModel {
  const folder = realPath(path);
  if (folder !== null && roots !== 'any' && !roots.some((root) => isWithin(folder, realPath(root)))) throw forbidden(path);
  if (folder === null || !existsSync(join(folder, 'config.json'))) {
    // Whether a path outside the roots exists is nobody's business.
    if (roots !== 'any') throw forbidden(path);
    throw new TunefleetError('not_found', `${path} is not a model folder: it has no config.json`, { reason: 'model_not_found', param: 'model' });
  }
  const weights = weightFiles(folder);
  const hash = createHash('sha256');
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json', ...weights]) {
    const file = join(folder, name);
    if (!existsSync(file)) continue;
    const { size } = statSync(file);
    hash.update(`${name}\0${size}\0`);
    hash.update(startOf(file, Math.min(size, HASHED_BYTES)));
  }
  return { folder, revision: `local-${hash.digest('hex').slice(0, 24)}`, weightBytes: weights.reduce((total, name) => total + statSync(join(folder, name)).size, 0) };
}

function startOf(path: string, bytes: number): Uint8Array {
  const descriptor = openSync(path, 'r');
  try {
    const buffer = new Uint8Array(bytes);
    return buffer.subarray(0, readSync(descriptor, buffer, 0, bytes, 0));
  } finally {
    closeSync(descriptor);
  }
}

function realPath(path: string): string | null {
  try {
    return realpathSync(path);
  } catch {
    return null;
  }
}

function isWithin(path: string, root: string | null): boolean {
  return root !== null && (path === root || path.startsWith(root.endsWith(sep) ? root : root + sep));
}

function forbidden(path: string): TunefleetError {
  return new TunefleetError('permission_denied', `${path} is not a model folder below the folders this service may read; the operator lists them in TUNEFLEET_LOCAL_MODELS`, { reason: 'model_not_available', param: 'model' });
}
