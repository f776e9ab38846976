import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { INDEX_FILE, SINGLE_FILE, byteLengthOf, writeSafetensors, type TensorDeclaration, type TensorProducer } from '../safetensors';

/** As Transformers does by default. */
const SHARD_BYTES_DEFAULT = 5_000_000_000;

export interface ModelFolderContent {
  /** `config.json` */
  readonly config: object;
  readonly tensors: readonly TensorDeclaration[];
  readonly produce: TensorProducer;
  /** `tokenizer.json`, an object or the text of an existing file */
  readonly tokenizer?: object | string;
  /** `tokenizer_config.json`, with `chat_template` inside */
  readonly tokenizerConfig?: object | string;
  /** `generation_config.json` */
  readonly generationConfig?: object | string;
  /** A shard is closed before it would grow past this. */
  readonly shardBytesMax?: number;
}

/** Writes a folder that Transformers can load. `config.json` comes last: a folder that has it is complete. @param folder must exist */
export async function writeModelFolder(folder: string, content: ModelFolderContent): Promise<void> {
  await writeWeights(folder, content);
  if (content.tokenizer !== undefined) await writeJson(join(folder, 'tokenizer.json'), content.tokenizer);
  if (content.tokenizerConfig !== undefined) await writeJson(join(folder, 'tokenizer_config.json'), content.tokenizerConfig);
  if (content.generationConfig !== undefined) await writeJson(join(folder, 'generation_config.json'), content.generationConfig);
  await writeJson(join(folder, 'config.json'), content.config);
}

async function writeWeights(folder: string, { tensors, produce, shardBytesMax = SHARD_BYTES_DEFAULT }: ModelFolderContent): Promise<void> {
  const shards = planShards(tensors, shardBytesMax);
  if (shards.length <= 1) return writeSafetensors(join(folder, SINGLE_FILE), tensors, produce);
  const weightMap: Record<string, string> = {};
  let totalBytes = 0;
  for (const [index, shard] of shards.entries()) {
    const name = `model-${String(index + 1).padStart(5, '0')}-of-${String(shards.length).padStart(5, '0')}.safetensors`;
    await writeSafetensors(join(folder, name), shard, produce);
    for (const tensor of shard) {
      weightMap[tensor.name] = name;
      totalBytes += byteLengthOf(tensor);
    }
  }
  await writeJson(join(folder, INDEX_FILE), { metadata: { total_size: totalBytes }, weight_map: weightMap });
}

/** Greedy, in the given order; a tensor larger than the limit gets a shard of its own. */
export function planShards(tensors: readonly TensorDeclaration[], bytesMax: number): TensorDeclaration[][] {
  const shards: TensorDeclaration[][] = [];
  let bytes = Infinity;
  for (const tensor of tensors) {
    const size = byteLengthOf(tensor);
    if (bytes + size > bytesMax) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)?.push(tensor);
    bytes += size;
  }
  return shards;
}

async function writeJson(path: string, value: object | string): Promise<void> {
  await writeFile(`${path}.partial`, typeof value === 'string' ? value : `${JSON.stringify(value, null, 2)}\n`, { flush: true });
  await rename(`${path}.partial`, path);
}
