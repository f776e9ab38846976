import { TunefleetError } from '@tunefleet/foundation';
import { readAdapterFiles, type AdapterFiles } from '@tunefleet/ml-formats';
import { createDeepPromptTuning, loadDeepPromptTuning } from './deep-prompt-tuning/deep-prompt-tuning';
import type { LoadedAdapter } from './loaded-adapter';
import { createAdapterTuner, loadAdapterTuner } from './adapter/adapter-tuner';
import { createIa3Tuner, loadIa3Tuner } from './ia3/ia3-tuner';
import { createSideTuner, loadSideTuner } from './side-tuning/side-tuner';
import { loadLora } from './lora/load';
import { LoraTuner } from './lora/lora-tuner';
import { planLora } from './lora/match';
import { createPTuning, loadPTuning } from './p-tuning/p-tuning';
import { createPrefixTuning, loadPrefixTuning } from './prefix-tuning/prefix-tuning';
import { createPromptTuning, loadPromptTuning } from './prompt-tuning/prompt-tuning';
import { BypassTuner } from './restuning-bypass/bypass-tuner';
import { loadBypass } from './restuning-bypass/load';
import { wireBypass } from './restuning-bypass/wiring';
import { planBranches } from './restuning/plan';
import { loadResTuning, ResTuningTuner } from './restuning/restuning-tuner';
import type { TunerKind, TunerSpec, TunerSpecs } from './spec-registry';
import type { BindableModel, TunableModel, Tuner } from './tuner';

interface TunerHalf<Spec> {
  create(spec: Spec, model: TunableModel): Tuner;
  /** What its folders say of themselves in `adapter_config.json`. */
  readonly folder: { readonly peft_type: string } | { readonly swift_type: string; readonly use_bypass?: false };
  /** @throws TunefleetError `incompatible_artifact` */
  load(model: BindableModel, files: AdapterFiles): LoadedAdapter;
}

/** The computing half of every tuner in `spec-registry.ts`. */
export const tuners: { readonly [K in TunerKind]: TunerHalf<TunerSpecs[K]> } = {
  lora: { create: (spec, model) => new LoraTuner(spec, planLora(spec, model)), folder: { peft_type: 'LORA' }, load: loadLora },
  ia3: { create: createIa3Tuner, folder: { peft_type: 'IA3' }, load: loadIa3Tuner },
  adapter: { create: createAdapterTuner, folder: { swift_type: 'ADAPTER' }, load: loadAdapterTuner },
  'side-tuning': { create: createSideTuner, folder: { swift_type: 'SIDE' }, load: loadSideTuner },
  'prompt-tuning': { create: createPromptTuning, folder: { peft_type: 'PROMPT_TUNING' }, load: loadPromptTuning },
  'prefix-tuning': { create: createPrefixTuning, folder: { peft_type: 'PREFIX_TUNING' }, load: loadPrefixTuning },
  'p-tuning': { create: createPTuning, folder: { peft_type: 'P_TUNING' }, load: loadPTuning },
  'deep-prompt-tuning': { create: createDeepPromptTuning, folder: { swift_type: 'PROMPT' }, load: loadDeepPromptTuning },
  // Before the bypass, which takes what is left of SWIFT's type.
  restuning: { create: (spec, model) => new ResTuningTuner(spec, planBranches(spec, model)), folder: { swift_type: 'RESTUNING', use_bypass: false }, load: loadResTuning },
  'restuning-bypass': { create: (spec, model) => new BypassTuner(spec, wireBypass(spec, model)), folder: { swift_type: 'RESTUNING' }, load: loadBypass },
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
  const files = await readAdapterFiles(folder);
  const half = Object.values(tuners).find(({ folder: marks }) => Object.entries(marks).every(([field, value]) => files.config[field] === value));
  if (half) return half.load(model, files);
  const { peft_type, swift_type } = files.config;
  const known = Object.values(tuners).map(({ folder: marks }) => ('peft_type' in marks ? marks.peft_type : marks.swift_type));
  throw new TunefleetError('incompatible_artifact', `the adapter is ${JSON.stringify(peft_type ?? swift_type ?? null)?.slice(0, 60)}, which cannot be loaded; supported are ${[...new Set(known)].join(', ')}`, { reason: 'bad_adapter' });
}
