import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, loraAdapterOf, readAdapterFiles, writeAdapterFiles, type AdapterFiles, type AdapterTensor } from '@tunefleet/ml-formats';
import { inNewFolder } from '../merged/export-merged';

/** Writes a PEFT folder again, keys in PEFT's own spelling. @throws TunefleetError `invalid_input`: a tuner that PEFT does not have */
export async function exportPeft(adapter: string, folder: string): Promise<void> {
  const files = await foreignFiles(adapter);
  if (files.config['peft_type'] === undefined) throw new TunefleetError('invalid_input', `PEFT has no tuner of type ${JSON.stringify(files.config['swift_type'] ?? null)}; use --format swift`, { reason: 'no_such_layout' });
  const { config } = files;
  const tensors = config['peft_type'] === 'LORA' ? loraAdapterOf(files).tensors.map((tensor) => ({ ...tensor, name: `base_model.model.${tensor.name}` })) : files.tensors;
  await inNewFolder(folder, (partial) => writeAdapterFiles(partial, { config: formatAdapterConfig(config), tensors, card: cardOf(config, 'peft') }));
}

/**
 * Writes a SWIFT folder with the one adapter `default`: SWIFT's own tuners as they are, a LoRA in the layout of SWIFT's native one.
 * @throws TunefleetError `invalid_input`: a tuner that SWIFT has by way of PEFT only
 */
export async function exportSwift(adapter: string, folder: string): Promise<void> {
  const files = await foreignFiles(adapter);
  const content = files.config['swift_type'] === undefined ? swiftLora(files) : files;
  await inNewFolder(folder, async (partial) => {
    await writeAdapterFiles(join(partial, 'default'), { config: formatAdapterConfig(content.config), tensors: content.tensors, card: cardOf(files.config, 'swift') });
    await writeFile(join(partial, 'configuration.json'), '{}');
  });
}

/** An adapter that some other library has a layout for. */
async function foreignFiles(adapter: string): Promise<AdapterFiles> {
  const files = await readAdapterFiles(adapter);
  if (files.config['tunefleet_type'] === undefined) return files;
  throw new TunefleetError('invalid_input', 'the adapter holds weights of the model itself, for which neither PEFT nor SWIFT has a layout; use --format merged', { reason: 'no_such_layout' });
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
