import type { TunerKind } from '../spec-registry';

/** What a tuner may be able to do. */
export const ASPECTS = ['train', 'resume', 'merge', 'mixed batch', 'PEFT read', 'PEFT write', 'SWIFT read', 'SWIFT write', 'GGUF'] as const;
export type Aspect = (typeof ASPECTS)[number];

/** Proved by a test (file below the workspace, and words of the test's title), or why not. */
export type Cell = { readonly file: string; readonly test: string } | { readonly no: string };

const TUNERS = 'libs/ml/tuners/src';
const proved = (file: string, test: string): Cell => ({ file: `${TUNERS}/${file}`, test });

/** One job of every kind: it learns, and stopped and resumed gives the same bits. */
const asJob: Cell = { file: 'libs/ml/jobs/src/fine-tune/tuners.spec.ts', test: "test.each(Object.entries(TUNERS))('%s'" };
const mixed = proved('composition/mixed-batch.spec.ts', "test.each(mixable)('rows of %s with adapters of their own give what they give alone'");
const OWN_PASS: Cell = { no: 'virtual tokens take positions of every row of a pass: rows with an adapter of this kind need a pass of their own' };
const SHARED_WEIGHTS: Cell = { no: 'what is trained is the model itself, which all rows of a pass share' };

const NO_PEFT: Cell = { no: 'PEFT has no such method' };
const NO_SWIFT: Cell = { no: 'SWIFT writes this method in the format of PEFT' };
const OURS: Cell = { no: 'the method without a bypass is ours: no other tool reads it' };
const NOT_LINEAR: Cell = { no: 'not a change of linear maps: there is nothing to add to the weights' };
const NO_GGUF: Cell = { no: 'GGUF knows adapters of LoRA only; where the method merges, export the merged model' };
const RUNTIME: Cell = { no: 'needs computing beside the model, which GGUF runtimes do not have' };

const MERGED: Cell = { file: 'libs/ml/export/src/merged/merged.spec.ts', test: 'merged weights compute what base and adapter do' };

type Row = Readonly<Record<Aspect, Cell>>;
const common = { train: asJob, resume: asJob, 'mixed batch': mixed } as const;
const virtualTokens: Row = {
  ...common,
  'mixed batch': OWN_PASS,
  merge: NOT_LINEAR,
  'PEFT read': proved('virtual-tokens/decoders.spec.ts', 'logits, loss and every gradient are those of PEFT'),
  'PEFT write': proved('virtual-tokens/virtual-tokens.spec.ts', 'written as PEFT writes it: key, shape, numbers and long-established fields'),
  'SWIFT read': NO_SWIFT,
  'SWIFT write': NO_SWIFT,
  GGUF: RUNTIME,
};
const swiftModules = (read: Cell, written: Cell): Row => ({ ...common, merge: NOT_LINEAR, 'PEFT read': NO_PEFT, 'PEFT write': NO_PEFT, 'SWIFT read': read, 'SWIFT write': written, GGUF: RUNTIME });
const moduleRead = proved('adapter/module-tuners.spec.ts', 'the folder gives the logits of those who wrote it');
const moduleWrite = proved('adapter/module-tuners.spec.ts', 'saved again it has the same names, shapes and bytes');

const deepPrompt = proved('deep-prompt-tuning/deep-prompt-tuning.spec.ts', 'a folder of SWIFT computes what it computes there, at once and token by token, and is written alike');

const NO_SWIFT_FULL: Cell = { no: 'SWIFT leaves a whole model; export the merged one' };
const AS_LORA: Cell = { no: 'what is saved is plain LoRA: see its row' };

export const conformance: { readonly [K in TunerKind]: Row } = {
  lora: {
    ...common,
    merge: MERGED,
    'PEFT read': proved('lora/lora.spec.ts', 'an adapter written by PEFT gives the logits of PEFT'),
    'PEFT write': proved('lora/lora.spec.ts', 'saved and read again it is the same, under the names and shapes PEFT wrote'),
    'SWIFT read': { file: 'libs/ml/export/src/folders/export-folder.spec.ts', test: 'a LoRA in the layout of SWIFT is read like the one in the layout of PEFT' },
    'SWIFT write': { file: 'libs/ml/export/src/folders/export-folder.spec.ts', test: 'a LoRA in the layout of SWIFT holds the same numbers under names with the adapter in them' },
    GGUF: { file: 'libs/ml/export/src/gguf/gguf.spec.ts', test: 'a LoRA as an adapter has the factors of its file, rotary rows turned' },
  },
  qlora: {
    ...common,
    merge: AS_LORA,
    'PEFT read': proved('qlora/qlora.spec.ts', 'loss and every gradient on a base in 4 bits are those of PEFT and bitsandbytes'),
    'PEFT write': AS_LORA,
    'SWIFT read': AS_LORA,
    'SWIFT write': AS_LORA,
    GGUF: AS_LORA,
  },
  ia3: { ...common, merge: MERGED, 'PEFT read': moduleRead, 'PEFT write': moduleWrite, 'SWIFT read': NO_SWIFT, 'SWIFT write': NO_SWIFT, GGUF: NO_GGUF },
  adapter: swiftModules(moduleRead, moduleWrite),
  'side-tuning': swiftModules(moduleRead, moduleWrite),
  'prompt-tuning': virtualTokens,
  'prefix-tuning': virtualTokens,
  'p-tuning': virtualTokens,
  'deep-prompt-tuning': { ...swiftModules(deepPrompt, deepPrompt), 'mixed batch': OWN_PASS },
  restuning: { ...common, merge: NOT_LINEAR, 'PEFT read': NO_PEFT, 'PEFT write': NO_PEFT, 'SWIFT read': OURS, 'SWIFT write': OURS, GGUF: RUNTIME },
  'restuning-bypass': swiftModules(
    proved('restuning-bypass/restuning-bypass.spec.ts', 'a folder of SWIFT gives its logits, loss and every gradient'),
    proved('restuning-bypass/restuning-bypass.spec.ts', 'under the names and shapes SWIFT wrote'),
  ),
  full: { ...common, 'mixed batch': SHARED_WEIGHTS, merge: MERGED, 'PEFT read': NO_PEFT, 'PEFT write': NO_PEFT, 'SWIFT read': NO_SWIFT_FULL, 'SWIFT write': NO_SWIFT_FULL, GGUF: NO_GGUF },
};
