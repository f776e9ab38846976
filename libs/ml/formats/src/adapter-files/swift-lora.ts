import { badAdapter, type AdapterFiles } from './adapter-files';

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
 * A LoRA in SWIFT's own layout (`swift_type` LORA) in PEFT's: names lose the adapter's name when PEFT's reader takes them. Other folders as they are.
 * @throws TunefleetError `incompatible_artifact` for forms of LoRA that PEFT has not
 */
export function inPeftForm({ config, tensors }: AdapterFiles): AdapterFiles {
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
