import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errorMessage } from '@tunefleet/foundation';
import { SafetensorsFile, encodeSafetensors, type SafetensorsDtype, type SafetensorsEntry } from '../safetensors';
import { onlyAdapter } from './adapter-root';
import { ADAPTER_CONFIG, badAdapter } from './files';

export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
export const MODEL_CARD = 'README.md';
const CONFIG_BYTES_MAX = 16 * 1024 * 1024;

export interface AdapterTensor {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Row-major little-endian elements. */
  readonly data: Uint8Array;
}

/** An adapter folder of PEFT or SWIFT as it lies on disk: nothing interpreted. */
export interface AdapterFiles {
  /** A JSON object; `peft_type` or `swift_type` says what it is. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Names as in the file. */
  readonly tensors: readonly AdapterTensor[];
}

/**
 * Reads a folder with `adapter_config.json` and `adapter_model.safetensors`, or one with a single such folder in it, as SWIFT writes it. Tensors keep the dtype of the file.
 * @throws TunefleetError `incompatible_artifact`: a pickle, damaged, or not an adapter folder
 */
export async function readAdapterFiles(root: string): Promise<AdapterFiles> {
  const folder = onlyAdapter(root);
  const configPath = join(folder, ADAPTER_CONFIG);
  if (statSync(configPath).size > CONFIG_BYTES_MAX) throw badAdapter(`${ADAPTER_CONFIG} is larger than ${CONFIG_BYTES_MAX} bytes`);
  const config = parseObject(await readFile(configPath, 'utf8'));
  const weights = join(folder, ADAPTER_WEIGHTS);
  if (!existsSync(weights)) {
    const pickle = existsSync(join(folder, 'adapter_model.bin'));
    throw badAdapter(pickle ? 'adapter_model.bin is a Python pickle, which can run code when it is loaded; save the adapter as safetensors' : `${folder} has no ${ADAPTER_WEIGHTS}`);
  }
  using file = SafetensorsFile.open(weights);
  const names = namesOf(basename(folder), config, [...file.tensors.keys()]);
  return { config, tensors: names.map((name) => ({ name, ...described(file.entry(name)), data: file.read(name) })) };
}

/** Writes the three files; each appears complete or not at all, the configuration last. Creates the folder. Equal input gives equal bytes. */
export async function writeAdapterFiles(folder: string, { config, tensors, card }: { readonly config: string; readonly tensors: readonly AdapterTensor[]; readonly card: string }): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files: readonly (readonly [string, Uint8Array])[] = [
    [MODEL_CARD, Buffer.from(card, 'utf8')],
    [ADAPTER_WEIGHTS, encodeSafetensors(tensors)],
    [ADAPTER_CONFIG, Buffer.from(config, 'utf8')],
  ];
  for (const [name, bytes] of files) {
    const path = join(folder, name);
    await writeFile(`${path}.partial`, bytes, { flush: true });
    await rename(`${path}.partial`, path);
  }
}

/** The text of `adapter_config.json` as PEFT and SWIFT write it: keys sorted, indent 2. */
export function formatAdapterConfig(config: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1))), null, 2);
}

/** Where SWIFT puts an adapter's name into a tensor's. */
const SWIFT_NAME = /(?:^|\.)(?:adapter|side|prompt|restuner|restuning)_(?<own>[A-Za-z0-9_-]+)(?=\.)|\.lora_[AB]\.(?<lora>[^.]+)\.weight$/;

/** SWIFT's tensors under another adapter's name. */
export function renamedInSwift(tensors: readonly AdapterTensor[], adapter: string): AdapterTensor[] {
  return tensors.map((tensor) => {
    const { own, lora } = SWIFT_NAME.exec(tensor.name)?.groups ?? {};
    if (own !== undefined) return { ...tensor, name: tensor.name.replace(SWIFT_NAME, (segment) => segment.slice(0, segment.length - own.length) + adapter) };
    return lora === undefined ? tensor : { ...tensor, name: tensor.name.replace(/(?<=\.lora_[AB]\.)[^.]+(?=\.weight$)/, adapter) };
  });
}

/** SWIFT chooses an adapter's tensors by how their names begin, so the folder of `a` holds those of `ab`, too: they are left out where the folder's own are there. */
function namesOf(folder: string, config: AdapterFiles['config'], names: readonly string[]): readonly string[] {
  if (config['swift_type'] === undefined) return names;
  const adapterOf = (name: string): string | undefined => {
    const { own, lora } = SWIFT_NAME.exec(name)?.groups ?? {};
    return own ?? lora;
  };
  return names.some((name) => adapterOf(name) === folder) ? names.filter((name) => (adapterOf(name) ?? folder) === folder) : names;
}

function described({ dtype, shape }: SafetensorsEntry): Pick<AdapterTensor, 'dtype' | 'shape'> {
  return { dtype, shape };
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badAdapter(`${ADAPTER_CONFIG} is not JSON (${errorMessage(error)})`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badAdapter(`${ADAPTER_CONFIG} is not a JSON object`);
  return value as Record<string, unknown>;
}
