import type { AdapterFiles, AdapterTensor } from './adapter-files';
import { badAdapter } from './files';

/** SWIFT's own fields of a LoRA, with the values that change nothing; undefined: any. @see modelscope/ms-swift `swift/tuners/lora.py` */
const NEUTRAL: Readonly<Record<string, readonly unknown[] | undefined>> = {
  model_key_mapping: [null],
  use_qa_lora: [false],
  use_merged_linear: [false],
  enable_lora: [null],
  lora_dtype: undefined,
  lorap_lr_ratio: undefined,
  lorap_emb_lr: undefined,
};

/**
 * A LoRA in SWIFT's own layout (`swift_type` LORA) in PEFT's: names lose the adapter's name when PEFT's reader takes them. SWIFT's extra states as a LoRA without
 * updates. Other folders as they are.
 * @throws TunefleetError `incompatible_artifact` for forms of LoRA that PEFT has not
 */
export function inPeftForm({ config, tensors }: AdapterFiles): AdapterFiles {
  if (Array.isArray(config['extra_state_keys'])) return extraStatesAsLora(tensors);
  if (config['swift_type'] !== 'LORA') return { config, tensors };
  const { swift_type: _type, ...fields } = config;
  const kept = Object.entries(fields).filter(([name, value]) => {
    if (!Object.hasOwn(NEUTRAL, name)) return true;
    const neutral = NEUTRAL[name];
    if (neutral && !neutral.includes(value)) throw badAdapter(`it is a LoRA of SWIFT with ${name} = ${JSON.stringify(value)?.slice(0, 100)}, which is not supported`);
    return false;
  });
  const names = new Set(tensors.flatMap(({ name }) => /\.lora_[AB]\.([^.]+)\.weight$/.exec(name)?.[1] ?? []));
  if (names.size > 1) throw badAdapter(`its file holds the tensors of ${names.size} adapters: ${[...names].slice(0, 5).join(', ')}; give each a folder of its own`);
  return { config: { ...Object.fromEntries(kept), peft_type: 'LORA' }, tensors };
}

/** Parameters of the base trained whole: what PEFT has in `modules_to_save`, and biases. */
function extraStatesAsLora(tensors: readonly AdapterTensor[]): AdapterFiles {
  const saved = [...new Set(tensors.flatMap(({ name }) => (name.endsWith('.weight') ? [name.slice(0, -'.weight'.length)] : [])))];
  return { config: { peft_type: 'LORA', r: 1, lora_alpha: 1, target_modules: [], bias: 'all', modules_to_save: saved.length > 0 ? saved : null }, tensors };
}
