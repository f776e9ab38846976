import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { writeModelFolder } from '@tunefleet/ml-formats';
import type { WeightDtype } from '@tunefleet/ml-models';
import type { MergedWeights } from './merged-weights';

export interface MergedExport {
  /** The base's folder; its tokenizer and generation files are copied. */
  readonly base: string;
  /** Content of the base's config.json. */
  readonly config: unknown;
  /** Of every tensor; null: as the base stores each. */
  readonly dtype: WeightDtype | null;
  readonly shardBytesMax?: number | undefined;
  /** Tensors written, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What Transformers reads beside config and weights. */
const COPIED = [
  ...['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'vocab.json', 'vocab.txt', 'merges.txt', 'tokenizer.model'],
  ...['chat_template.jinja', 'chat_template.json', 'generation_config.json'],
];

const TORCH_DTYPE: Readonly<Record<WeightDtype, string>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };

/**
 * Writes a model folder that Transformers can load: config, tokenizer and generation files of the base, merged weights in one file or in shards.
 * The folder appears whole or not at all.
 * @param folder must not exist, or be empty
 * @throws TunefleetError `conflict` when the folder holds files; `numerical`
 */
export async function exportMerged(weights: MergedWeights, folder: string, { base, config, dtype, shardBytesMax, onProgress, signal }: MergedExport): Promise<void> {
  await inNewFolder(folder, async (partial) => {
    for (const name of await readdir(base)) if (COPIED.includes(name)) await copyFile(join(base, name), join(partial, name));
    let done = 0;
    await writeModelFolder(partial, {
      config: mergedConfig(config as Record<string, unknown>, weights, dtype),
      tensors: weights.tensors.map((tensor) => ({ ...tensor, dtype: dtype ?? tensor.dtype })),
      produce: ({ name, dtype: wanted }) => {
        signal?.throwIfAborted();
        onProgress?.(++done, weights.tensors.length);
        return weights.bytes(name, wanted as WeightDtype);
      },
      ...(shardBytesMax === undefined ? {} : { shardBytesMax }),
    });
  });
}

function mergedConfig(config: Readonly<Record<string, unknown>>, { unties }: MergedWeights, dtype: WeightDtype | null): object {
  const dtypeField = 'dtype' in config ? 'dtype' : 'torch_dtype';
  return { ...config, ...(dtype ? { [dtypeField]: TORCH_DTYPE[dtype] } : {}), ...(unties ? { tie_word_embeddings: false } : {}) };
}

/** Runs `write` on a folder beside `folder`, which takes its place when all is written. @throws TunefleetError `conflict` when `folder` holds files */
export async function inNewFolder(folder: string, write: (partial: string) => Promise<void>): Promise<void> {
  const present = await readdir(folder).catch(() => []);
  if (present.length > 0) throw new TunefleetError('conflict', `${folder} is there already and holds files: remove it, or name another folder`);
  const partial = join(dirname(folder), `.${basename(folder)}.${process.pid}.partial`);
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    await write(partial);
    // An empty folder is replaced; anything that came meanwhile makes this fail.
    await rename(partial, folder);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}
