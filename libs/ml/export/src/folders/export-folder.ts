import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { EXTRA_STATES, formatAdapterConfig, formatModelCard, loraAdapterOf, readAdapterFiles, renamedInSwift, writeAdapterFiles, type AdapterFiles, type AdapterTensor } from '@tunefleet/ml-formats';
import { inNewFolder } from '../merged/export-merged';

/** Folders of adapters by the names they are to have. */
export type NamedAdapters = ReadonlyMap<string, string>;

/**
 * Writes PEFT folders again, keys in PEFT's own spelling: `default` into the folder itself, others into folders of their names.
 * @throws TunefleetError `invalid_input`: a tuner that PEFT does not have
 */
export async function exportPeft(adapters: NamedAdapters, folder: string): Promise<void> {
  const contents = await Promise.all([...adapters].map(async ([name, source]) => ({ name, ...inPeftLayout(await readAdapterFiles(source)) })));
  await inNewFolder(folder, async (partial) => {
    for (const { name, config, tensors } of contents) await writeAdapterFiles(name === 'default' ? partial : join(partial, name), { config: formatAdapterConfig(config), tensors, card: cardOf(config, 'peft') });
  });
}

function inPeftLayout(files: AdapterFiles): AdapterFiles {
  const { config } = files;
  if (config['peft_type'] === undefined) throw new TunefleetError('invalid_input', `PEFT has no tuner of type ${JSON.stringify(config['swift_type'] ?? null)}; use --format swift`, { reason: 'no_such_layout' });
  return { config, tensors: config['peft_type'] === 'LORA' ? loraAdapterOf(files).tensors.map((tensor) => ({ ...tensor, name: `base_model.model.${tensor.name}` })) : files.tensors };
}

/**
 * Writes a SWIFT folder with a folder per adapter: SWIFT's own tuners as they are, a LoRA in the layout of SWIFT's native one.
 * @param extraStates a folder of these, copied along; null: none
 * @throws TunefleetError `invalid_input`: a tuner that SWIFT has by way of PEFT only
 */
export async function exportSwift(adapters: NamedAdapters, folder: string, extraStates: string | null = null): Promise<void> {
  const contents = await Promise.all(
    [...adapters].map(async ([name, source]) => {
      const files = await readAdapterFiles(source);
      const { config, tensors } = files.config['swift_type'] === undefined ? swiftLora(files) : files;
      return { name, config, tensors: renamedInSwift(tensors, name), card: cardOf(files.config, 'swift') };
    }),
  );
  await inNewFolder(folder, async (partial) => {
    for (const { name, config, tensors, card } of contents) await writeAdapterFiles(join(partial, name), { config: formatAdapterConfig(config), tensors, card });
    if (extraStates !== null) await cp(extraStates, join(partial, EXTRA_STATES), { recursive: true });
    await writeFile(join(partial, 'configuration.json'), '{}');
  });
}

/** SWIFT's own fields of a LoRA. @see modelscope/ms-swift `swift/tuners/lora.py` */
const SWIFT_LORA = { swift_type: 'LORA', model_key_mapping: null, use_qa_lora: false, use_merged_linear: false, enable_lora: null, lora_dtype: null, lorap_lr_ratio: 16, lorap_emb_lr: 1e-6 };

function swiftLora(files: AdapterFiles): AdapterFiles {
  const type = files.config['peft_type'];
  if (type !== 'LORA') throw new TunefleetError('invalid_input', `SWIFT has no layout of its own for ${JSON.stringify(type ?? null)}: it reads the PEFT folder as it is; use --format peft`, { reason: 'no_such_layout' });
  const { peft_type: _type, ...fields } = files.config;
  return { config: { ...fields, ...SWIFT_LORA }, tensors: loraAdapterOf(files).tensors.map(named) };
}

/** With the adapter's name, as state dicts in memory have it. */
function named(tensor: AdapterTensor): AdapterTensor {
  const [, path, matrix] = /^(.+)\.(lora_[AB])\.weight$/.exec(tensor.name) ?? [];
  if (path === undefined) throw new TunefleetError('invalid_input', `"${tensor.name}" has no place in SWIFT's layout of a LoRA; SWIFT reads the PEFT folder as it is, use --format peft`, { reason: 'no_such_layout' });
  return { ...tensor, name: `${path}.${matrix}.default.weight` };
}

function cardOf(config: AdapterFiles['config'], library: 'peft' | 'swift'): string {
  const base = config['base_model_name_or_path'];
  const method = String(config['peft_type'] ?? config['swift_type']);
  return formatModelCard({ title: `${method} adapter`, base: typeof base === 'string' ? base : null, revision: null, tag: method.toLowerCase(), method, library, facts: [] });
}
