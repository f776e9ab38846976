import { TunefleetError } from '@tunefleet/foundation';
import { adapterSpec, type AdapterSpec } from './adapter/spec';
import { fullSpec, type FullSpec } from './full/spec';
import { ia3Spec, type Ia3Spec } from './ia3/spec';
import { sideTuningSpec, type SideTuningSpec } from './side-tuning/spec';
import { loraSpec, type LoraSpec } from './lora/spec';
import { qloraSpec, type QloraSpec } from './qlora/spec';
import { bypassSpec, type BypassSpec } from './restuning-bypass/spec';
import { resTuningSpec, type ResTuningSpec } from './restuning/spec';
import { deepPromptTuningSpec, type DeepPromptTuningSpec } from './deep-prompt-tuning/spec';
import { pTuningSpec, type PTuningSpec } from './p-tuning/spec';
import { prefixTuningSpec, type PrefixTuningSpec } from './prefix-tuning/spec';
import { promptTuningSpec, type PromptTuningSpec } from './prompt-tuning/spec';
import type { TunerSpecHalf } from './tuner-spec';

/** Specifications by kind. */
export interface TunerSpecs {
  readonly lora: LoraSpec;
  readonly qlora: QloraSpec;
  readonly ia3: Ia3Spec;
  readonly adapter: AdapterSpec;
  readonly 'side-tuning': SideTuningSpec;
  readonly 'prompt-tuning': PromptTuningSpec;
  readonly 'prefix-tuning': PrefixTuningSpec;
  readonly 'p-tuning': PTuningSpec;
  readonly 'deep-prompt-tuning': DeepPromptTuningSpec;
  readonly restuning: ResTuningSpec;
  readonly 'restuning-bypass': BypassSpec;
  readonly full: FullSpec;
}
export type TunerKind = keyof TunerSpecs;
export type TunerSpec = TunerSpecs[TunerKind];

/** The TensorFlow-free half of every tuner. Each has its other half in `registry.ts`. */
export const tunerSpecs: { readonly [K in TunerKind]: TunerSpecHalf<TunerSpecs[K]> } = {
  lora: loraSpec,
  qlora: qloraSpec,
  ia3: ia3Spec,
  adapter: adapterSpec,
  'side-tuning': sideTuningSpec,
  'prompt-tuning': promptTuningSpec,
  'prefix-tuning': prefixTuningSpec,
  'p-tuning': pTuningSpec,
  'deep-prompt-tuning': deepPromptTuningSpec,
  restuning: resTuningSpec,
  'restuning-bypass': bypassSpec,
  full: fullSpec,
};

/** The half that belongs to a specification. */
export function specHalfOf(spec: TunerSpec): TunerSpecHalf<TunerSpec> {
  return tunerSpecs[spec.kind] as TunerSpecHalf<TunerSpec>;
}

/** Checks a user's tuner settings and fills in defaults. @throws TunefleetError `invalid_input` with param `tuner.<field>` */
export function parseTunerSpec<K extends TunerKind>(value: { readonly kind: K; readonly [field: string]: unknown }): TunerSpecs[K];
export function parseTunerSpec(value: unknown): TunerSpec;
export function parseTunerSpec(value: unknown): TunerSpec {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new TunefleetError('invalid_input', 'tuner: must be an object such as {"kind": "lora", "r": 8}', { reason: 'invalid_tuner', param: 'tuner' });
  }
  const fields = value as Readonly<Record<string, unknown>>;
  const kind = fields['kind'];
  if (typeof kind === 'string' && Object.hasOwn(tunerSpecs, kind)) return tunerSpecs[kind as TunerKind].parse(fields);
  throw new TunefleetError('invalid_input', `tuner.kind: there is no tuner ${JSON.stringify(kind)?.slice(0, 60) ?? 'without a kind'}; there are ${Object.keys(tunerSpecs).join(', ')}`, {
    reason: 'invalid_tuner',
    param: 'tuner.kind',
  });
}
