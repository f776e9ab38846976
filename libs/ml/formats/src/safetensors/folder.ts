import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { TunefleetError, errorMessage } from '@tunefleet/foundation';
import { SafetensorsFile } from './file';
import { damaged, type SafetensorsEntry } from './header';

export const SINGLE_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';
const INDEX_BYTES_MAX = 64 * 1024 * 1024;
const SHARDS_MAX = 4096;
/** A plain file name: no separators, no leading dot, so that an index cannot point outside its folder. */
const SHARD_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors$/;

/** Tensor name -> shard file name, as in `weight_map`. @throws TunefleetError `incompatible_artifact` */
export function parseShardIndex(text: string): Map<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(INDEX_FILE, `is not JSON (${errorMessage(error)})`);
  }
  const map = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)['weight_map'] : undefined;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) throw damaged(INDEX_FILE, 'has no weight_map object');
  const shards = new Set<string>();
  const result = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !SHARD_NAME.test(shard)) {
      throw damaged(INDEX_FILE, `puts tensor "${tensor.slice(0, 120)}" into ${JSON.stringify(shard)?.slice(0, 120)}, which is not a plain .safetensors file name`);
    }
    shards.add(shard);
    if (shards.size > SHARDS_MAX) throw damaged(INDEX_FILE, `names more than ${SHARDS_MAX} shards`);
    result.set(tensor, shard);
  }
  return result;
}

/** Names of the weight files a model folder needs, from its index where it has one. @throws TunefleetError `incompatible_artifact` when there are none */
export function weightFiles(folder: string): string[] {
  const indexPath = join(folder, INDEX_FILE);
  if (existsSync(indexPath)) return [...new Set(readIndex(indexPath).values())].sort();
  if (existsSync(join(folder, SINGLE_FILE))) return [SINGLE_FILE];
  throw new TunefleetError('incompatible_artifact', `${folder} holds neither ${SINGLE_FILE} nor ${INDEX_FILE}; weights must be in safetensors form`, { reason: 'no_weights' });
}

/** All tensors of a model folder, in one file or in shards. Same rules as `SafetensorsFile`: lazy, closed with `using`. */
export class SafetensorsFolder implements Disposable {
  readonly #files: readonly SafetensorsFile[];
  readonly #owner = new Map<string, SafetensorsFile>();

  private constructor(files: readonly SafetensorsFile[]) {
    this.#files = files;
    for (const file of files) for (const name of file.tensors.keys()) this.#owner.set(name, file);
  }

  /** @throws TunefleetError `incompatible_artifact` when files are damaged, missing, or disagree with the index */
  static open(folder: string): SafetensorsFolder {
    const names = weightFiles(folder);
    const files: SafetensorsFile[] = [];
    try {
      for (const name of names) files.push(SafetensorsFile.open(join(folder, name)));
      checkShards(folder, names, files);
    } catch (error) {
      for (const file of files) file.close();
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw damaged(folder, `lacks a weight file its index names (${errorMessage(error)})`);
      throw error;
    }
    return new SafetensorsFolder(files);
  }

  names(): string[] {
    return [...this.#owner.keys()];
  }

  entry(name: string): SafetensorsEntry {
    return this.#fileOf(name).entry(name);
  }

  /** Row-major little-endian bytes in a new array, owned by the caller. */
  read(name: string): Uint8Array<ArrayBuffer> {
    return this.#fileOf(name).read(name);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #fileOf(name: string): SafetensorsFile {
    const file = this.#owner.get(name);
    if (file === undefined) throw new TunefleetError('incompatible_artifact', `the model has no tensor "${name}"`, { reason: 'missing_tensor', details: { tensor: name } });
    return file;
  }
}

function checkShards(folder: string, names: readonly string[], files: readonly SafetensorsFile[]): void {
  const indexPath = join(folder, INDEX_FILE);
  if (!existsSync(indexPath)) return;
  const byName = new Map(names.map((name, index) => [name, files[index] as SafetensorsFile]));
  for (const [tensor, shard] of readIndex(indexPath)) {
    if (!byName.get(shard)?.tensors.has(tensor)) throw damaged(shard, `lacks tensor "${tensor}" that ${INDEX_FILE} expects in it`);
  }
  const owner = new Map<string, string>();
  for (const [shard, file] of byName) {
    for (const tensor of file.tensors.keys()) {
      const other = owner.get(tensor);
      if (other !== undefined) throw damaged(shard, `repeats tensor "${tensor}" of ${other}`);
      owner.set(tensor, shard);
    }
  }
}

function readIndex(path: string): Map<string, string> {
  const { size } = statSync(path);
  if (size > INDEX_BYTES_MAX) throw damaged(INDEX_FILE, `has ${size} bytes; the limit is ${INDEX_BYTES_MAX}`);
  return parseShardIndex(readFileSync(path, 'utf8'));
}
