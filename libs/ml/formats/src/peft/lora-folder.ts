import { ADAPTER_WEIGHTS, badAdapter, readAdapterFiles, writeAdapterFiles, formatModelCard, type AdapterFiles, type AdapterTensor, type ModelCard } from '../adapter-files';
import { parseAdapterKey, parseWholeKey, toFileKey } from './adapter-keys';
import { formatLoraConfig, loraConfigOf, type LoraAdapterConfig } from './lora-config';

export interface LoraAdapter {
  readonly config: LoraAdapterConfig;
  /** `<module path>.lora_A.weight` and so on; no prefix, no adapter name. */
  readonly tensors: readonly AdapterTensor[];
}

export interface LoadedLoraAdapter extends LoraAdapter {
  /** Config fields that were ignored because we do not know them. */
  readonly ignoredFields: readonly string[];
  /** What is done to the embedding is done to the output head, too; the file holds both. */
  readonly tiesWeights: boolean;
}

/** Writes a PEFT folder. */
export function writeLoraAdapter(folder: string, { config, tensors }: LoraAdapter, card: Pick<ModelCard, 'title' | 'facts'>): Promise<void> {
  return writeAdapterFiles(folder, {
    config: formatLoraConfig(config),
    tensors: tensors.map((tensor) => ({ ...tensor, name: toFileKey(tensor.name) })),
    card: formatModelCard({
      ...card,
      base: config.base_model_name_or_path,
      revision: config.revision,
      tag: 'lora',
      method: `${config.use_dora ? 'DoRA' : 'LoRA'}, rank ${config.r}, alpha ${config.lora_alpha}${config.use_rslora ? ', rank-stabilised' : ''}`,
      library: 'peft',
    }),
  });
}

export async function readLoraAdapter(folder: string): Promise<LoadedLoraAdapter> {
  return loraAdapterOf(await readAdapterFiles(folder));
}

/**
 * What a PEFT LoRA folder holds, whoever wrote it.
 * @throws TunefleetError `incompatible_artifact`: not LoRA, shapes that disagree with the rank, or tensors we would have to drop
 */
export function loraAdapterOf(files: AdapterFiles): LoadedLoraAdapter {
  const { config, ignoredFields } = loraConfigOf(files.config);
  const tiesWeights = files.config['ensure_weight_tying'] === true;
  const tensors: AdapterTensor[] = [];
  const unknown: string[] = [];
  const seen = new Set<string>();
  for (const tensor of files.tensors) {
    const key = parseAdapterKey(tensor.name);
    const name = key === undefined ? wholeName(tensor.name, config, tiesWeights) : `${key.module}.${key.parameter}`;
    if (name === undefined) {
      unknown.push(tensor.name);
      continue;
    }
    if (seen.has(name)) throw badAdapter(`${ADAPTER_WEIGHTS} holds "${name}" twice under different spellings`);
    seen.add(name);
    tensors.push({ ...tensor, name });
  }
  if (unknown.length > 0) {
    const shown = unknown.slice(0, 10).join(', ');
    throw badAdapter(`${ADAPTER_WEIGHTS} has ${unknown.length} tensors that are not LoRA's: ${shown}${unknown.length > 10 ? ', ...' : ''}; nothing is dropped silently, so the adapter is not loaded`);
  }
  checkPairs(tensors);
  return { config, tensors, ignoredFields, tiesWeights };
}

/** Every A has its B and they agree on the rank. */
function checkPairs(tensors: readonly AdapterTensor[]): void {
  const shapes = new Map(tensors.map(({ name, shape }) => [name, shape]));
  for (const [name, shape] of shapes) {
    const isA = name.endsWith('.lora_A.weight');
    if (!isA && !name.endsWith('.lora_B.weight')) continue;
    const partner = isA ? name.replace(/lora_A\.weight$/, 'lora_B.weight') : name.replace(/lora_B\.weight$/, 'lora_A.weight');
    const other = shapes.get(partner);
    if (other === undefined) throw badAdapter(`${ADAPTER_WEIGHTS} has "${name}" but not "${partner}"`);
    if (isA && shape[0] !== other[1]) throw badAdapter(`"${name}" has rank ${shape[0]} but "${partner}" has rank ${other[1]}`);
  }
}

/** Tables and biases that go with the factors, where the configuration or their own name says why they are there. */
function wholeName(fileKey: string, { modules_to_save: saved, bias, target_modules: targets }: LoraAdapterConfig, tiesWeights: boolean): string | undefined {
  const name = parseWholeKey(fileKey);
  if (name === undefined || /\.lora_[^.]+\./.test(name)) return undefined;
  const module = name.replace(/\.(weight|bias)$/, '');
  const isTable = /(^|\.)(embed_tokens|wte|lm_head)$/.test(module);
  const known =
    name.endsWith('.trainable_tokens_delta') ||
    module.endsWith('.base_layer') ||
    saved?.some((entry) => module.endsWith(entry)) ||
    (bias === 'all' && name.endsWith('.bias')) ||
    (isTable && (tiesWeights || (saved === null && targets !== null && mentionsTable(targets))));
  return known ? name : undefined;
}

function mentionsTable(targets: NonNullable<LoraAdapterConfig['target_modules']>): boolean {
  return [targets].flat().some((target) => /(embed_tokens|wte|lm_head)/.test(target));
}
