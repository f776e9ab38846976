import { TunefleetError } from '@tunefleet/foundation';
import { inPeftForm, readAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import { createDeepPromptTuning, loadDeepPromptTuning } from './deep-prompt-tuning/deep-prompt-tuning';
import type { LoadedAdapter } from './loaded-adapter';
import { createAdapterTuner, loadAdapterTuner } from './adapter/adapter-tuner';
import { createFullTuner } from './full/full-tuner';
import { loadFull, mergeFull } from './full/load';
import { FULL_TYPE } from './full/save';
import { createIa3Tuner, loadIa3Tuner, mergeIa3 } from './ia3/ia3-tuner';
import { createSideTuner, loadSideTuner } from './side-tuning/side-tuner';
import { loadLora } from './lora/load';
import { LoraTuner } from './lora/lora-tuner';
import { mergeLora } from './lora/merge';
import { planLora } from './lora/match';
import { loraOf } from './qlora/spec';
import { createPTuning, loadPTuning } from './p-tuning/p-tuning';
import { createPrefixTuning, loadPrefixTuning } from './prefix-tuning/prefix-tuning';
import { createPromptTuning, loadPromptTuning } from './prompt-tuning/prompt-tuning';
import { BypassTuner } from './restuning-bypass/bypass-tuner';
import { loadBypass } from './restuning-bypass/load';
import { wireBypass } from './restuning-bypass/wiring';
import { planBranches } from './restuning/plan';
import { loadResTuning, ResTuningTuner } from './restuning/restuning-tuner';
import { tunerSpecs, type TunerKind, type TunerSpec, type TunerSpecs } from './spec-registry';
import type { BindableModel, TunableModel, Tuner } from './tuner';
import { refuseMerge, type BaseOnDisk, type WeightChanges } from './weight-changes';

interface TunerHalf<Spec> {
  create(spec: Spec, model: TunableModel): Tuner;
  /** What its folders say of themselves in `adapter_config.json`. */
  readonly folder: { readonly peft_type: string } | { readonly swift_type: string; readonly use_bypass?: false } | { readonly tunefleet_type: string };
  /** @throws TunefleetError `incompatible_artifact` */
  load(model: BindableModel, files: AdapterFiles): LoadedAdapter;
  /** What it makes of the base's weights, or why it is no change of weights. */
  readonly merge: ((base: BaseOnDisk, files: AdapterFiles) => WeightChanges) | { readonly refused: string };
}

const MODULE_OUTPUTS = { refused: 'it runs small networks beside the base, which are not linear' };
const VIRTUAL_TOKENS = { refused: 'it puts tokens before every text, which no weight can stand for' };

/** The computing half of every tuner in `spec-registry.ts`. */
export const tuners: { readonly [K in TunerKind]: TunerHalf<TunerSpecs[K]> } = {
  lora: { create: (spec, model) => new LoraTuner(spec, planLora(spec, model)), folder: { peft_type: 'LORA' }, load: loadLora, merge: mergeLora },
  // Its folders are LoRA's, which comes first.
  qlora: { create: (spec, model) => new LoraTuner(loraOf(spec), planLora(loraOf(spec), model)), folder: { peft_type: 'LORA' }, load: loadLora, merge: mergeLora },
  ia3: { create: createIa3Tuner, folder: { peft_type: 'IA3' }, load: loadIa3Tuner, merge: mergeIa3 },
  adapter: { create: createAdapterTuner, folder: { swift_type: 'ADAPTER' }, load: loadAdapterTuner, merge: MODULE_OUTPUTS },
  'side-tuning': { create: createSideTuner, folder: { swift_type: 'SIDE' }, load: loadSideTuner, merge: MODULE_OUTPUTS },
  'prompt-tuning': { create: createPromptTuning, folder: { peft_type: 'PROMPT_TUNING' }, load: loadPromptTuning, merge: VIRTUAL_TOKENS },
  'prefix-tuning': { create: createPrefixTuning, folder: { peft_type: 'PREFIX_TUNING' }, load: loadPrefixTuning, merge: VIRTUAL_TOKENS },
  'p-tuning': { create: createPTuning, folder: { peft_type: 'P_TUNING' }, load: loadPTuning, merge: VIRTUAL_TOKENS },
  'deep-prompt-tuning': { create: createDeepPromptTuning, folder: { swift_type: 'PROMPT' }, load: loadDeepPromptTuning, merge: VIRTUAL_TOKENS },
  // Before the bypass, which takes what is left of SWIFT's type.
  restuning: { create: (spec, model) => new ResTuningTuner(spec, planBranches(spec, model)), folder: { swift_type: 'RESTUNING', use_bypass: false }, load: loadResTuning, merge: MODULE_OUTPUTS },
  'restuning-bypass': { create: (spec, model) => new BypassTuner(spec, wireBypass(spec, model)), folder: { swift_type: 'RESTUNING' }, load: loadBypass, merge: MODULE_OUTPUTS },
  full: { create: createFullTuner, folder: { tunefleet_type: FULL_TYPE }, load: loadFull, merge: mergeFull },
};

/** Attaches a method to a model. @throws TunefleetError `invalid_input` when the specification does not fit the model */
export function createTuner(spec: TunerSpec, model: TunableModel): Tuner {
  const half: TunerHalf<never> = tuners[spec.kind];
  return half.create(spec as never, model);
}

/**
 * Reads an adapter folder, whoever wrote it, for one model.
 * @returns the adapter, the caller's to dispose
 * @throws TunefleetError `incompatible_artifact`: damaged, of a kind that is not known, or made for another base model
 */
export async function loadAdapter(model: BindableModel, folder: string): Promise<LoadedAdapter> {
  const files = inPeftForm(await readAdapterFiles(folder));
  return halfOf(files).half.load(model, files);
}

/**
 * What an adapter makes of its base's weights, for those that are a change of weights.
 * @throws TunefleetError `invalid_input`, reason `not_mergeable`; `incompatible_artifact` as `loadAdapter`
 */
export function weightChangesOf(base: BaseOnDisk, stored: AdapterFiles): WeightChanges {
  const files = inPeftForm(stored);
  const { kind, half } = halfOf(files);
  if (typeof half.merge === 'function') return half.merge(base, files);
  throw refuseMerge(tunerSpecs[kind].title, half.merge.refused);
}

function halfOf({ config }: AdapterFiles): { readonly kind: TunerKind; readonly half: TunerHalf<never> } {
  for (const [kind, half] of Object.entries(tuners)) {
    if (Object.entries(half.folder).every(([field, value]) => config[field] === value)) return { kind: kind as TunerKind, half };
  }
  const { peft_type, swift_type } = config;
  const known = Object.values(tuners).flatMap(({ folder: marks }) => Object.values(marks).filter((mark) => typeof mark === 'string'));
  throw new TunefleetError('incompatible_artifact', `the adapter is ${JSON.stringify(peft_type ?? swift_type ?? null)?.slice(0, 60)}, which cannot be loaded; supported are ${[...new Set(known)].join(', ')}`, { reason: 'bad_adapter' });
}
