import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { SafetensorsFile, encodeSafetensors, type SafetensorsDtype, type TensorInMemory } from '../safetensors';
import { parseAdapterKey, toFileKey } from './adapter-keys';
import { formatLoraConfig, parseLoraConfig, type LoraAdapterConfig } from './lora-config';
import { formatModelCard, type ModelCard } from './model-card';

export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
export const MODEL_CARD = 'README.md';
const CONFIG_BYTES_MAX = 16 * 1024 * 1024;

export interface AdapterTensor {
  /** `<module path>.lora_A.weight` and so on; no prefix, no adapter name. */
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Row-major little-endian elements. */
  readonly data: Uint8Array;
}

export interface LoraAdapter {
  readonly config: LoraAdapterConfig;
  readonly tensors: readonly AdapterTensor[];
}

export interface LoadedLoraAdapter extends LoraAdapter {
  /** Config fields that were ignored because we do not know them. */
  readonly ignoredFields: readonly string[];
}

/** The folder's files as bytes: what is stored as artifacts. Equal adapters give equal bytes. */
export function encodeLoraAdapter({ config, tensors }: LoraAdapter, card: ModelCard): Map<string, Uint8Array> {
  const stored = tensors.map((tensor): TensorInMemory => ({ ...tensor, name: toFileKey(tensor.name) }));
  return new Map<string, Uint8Array>([
    [ADAPTER_CONFIG, Buffer.from(formatLoraConfig(config), 'utf8')],
    [ADAPTER_WEIGHTS, encodeSafetensors(stored)],
    [MODEL_CARD, Buffer.from(formatModelCard(config, card), 'utf8')],
  ]);
}

/** Writes the three files; each appears complete or not at all, the configuration last. Creates the folder. */
export async function writeLoraAdapter(folder: string, adapter: LoraAdapter, card: ModelCard): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = encodeLoraAdapter(adapter, card);
  for (const name of [MODEL_CARD, ADAPTER_WEIGHTS, ADAPTER_CONFIG]) {
    const path = join(folder, name);
    await writeFile(`${path}.partial`, files.get(name) as Uint8Array, { flush: true });
    await rename(`${path}.partial`, path);
  }
}

/**
 * Reads a PEFT LoRA folder, whoever wrote it. Tensors keep the dtype of the file.
 * @throws TunefleetError `incompatible_artifact`: not LoRA, a pickle, damaged, shapes that disagree with the rank, or tensors we would have to drop
 */
export async function readLoraAdapter(folder: string): Promise<LoadedLoraAdapter> {
  const configPath = join(folder, ADAPTER_CONFIG);
  if (!existsSync(configPath)) throw refuse(`${folder} has no ${ADAPTER_CONFIG}; it is not a PEFT adapter folder`);
  if (statSync(configPath).size > CONFIG_BYTES_MAX) throw refuse(`${ADAPTER_CONFIG} is larger than ${CONFIG_BYTES_MAX} bytes`);
  const { config, ignoredFields } = parseLoraConfig(await readFile(configPath, 'utf8'));
  const weights = join(folder, ADAPTER_WEIGHTS);
  if (!existsSync(weights)) {
    const pickle = existsSync(join(folder, 'adapter_model.bin'));
    throw refuse(pickle ? 'adapter_model.bin is a Python pickle, which can run code when it is loaded; save the adapter as safetensors' : `${folder} has no ${ADAPTER_WEIGHTS}`);
  }
  using file = SafetensorsFile.open(weights);
  const tensors: AdapterTensor[] = [];
  const unknown: string[] = [];
  const seen = new Set<string>();
  for (const [fileKey, { dtype, shape }] of file.tensors) {
    const key = parseAdapterKey(fileKey);
    if (key === undefined) {
      unknown.push(fileKey);
      continue;
    }
    const name = `${key.module}.${key.parameter}`;
    if (seen.has(name)) throw refuse(`${ADAPTER_WEIGHTS} holds "${name}" twice under different spellings`);
    seen.add(name);
    tensors.push({ name, dtype, shape, data: file.read(fileKey) });
  }
  if (unknown.length > 0) {
    const shown = unknown.slice(0, 10).join(', ');
    throw refuse(`${ADAPTER_WEIGHTS} has ${unknown.length} tensors that are not LoRA's: ${shown}${unknown.length > 10 ? ', ...' : ''}; nothing is dropped silently, so the adapter is not loaded`);
  }
  checkPairs(tensors);
  return { config, tensors, ignoredFields };
}

/** Every A has its B and they agree on the rank. */
function checkPairs(tensors: readonly AdapterTensor[]): void {
  const shapes = new Map(tensors.map(({ name, shape }) => [name, shape]));
  for (const [name, shape] of shapes) {
    const isA = name.endsWith('.lora_A.weight');
    if (!isA && !name.endsWith('.lora_B.weight')) continue;
    const partner = isA ? name.replace(/lora_A\.weight$/, 'lora_B.weight') : name.replace(/lora_B\.weight$/, 'lora_A.weight');
    const other = shapes.get(partner);
    if (other === undefined) throw refuse(`${ADAPTER_WEIGHTS} has "${name}" but not "${partner}"`);
    if (isA && shape[0] !== other[1]) throw refuse(`"${name}" has rank ${shape[0]} but "${partner}" has rank ${other[1]}`);
  }
}

function refuse(message: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', message, { reason: 'bad_adapter' });
}
