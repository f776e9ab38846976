import type { Device } from '@tunefleet/ml-tensor';
import type { AdaptableModel, LoadedAdapter } from './loaded-adapter';
import { loadLora } from './lora/load';
import { LoraTuner } from './lora/lora-tuner';
import { matchProjections } from './lora/match';
import type { TunerKind, TunerSpec, TunerSpecs } from './spec-registry';
import type { TunableModel, Tuner } from './tuner';

interface TunerHalf<Spec> {
  create(spec: Spec, model: TunableModel): Tuner;
  /** @throws TunefleetError `incompatible_artifact` */
  load(device: Device, model: AdaptableModel, folder: string): Promise<LoadedAdapter>;
}

/** The computing half of every tuner in `spec-registry.ts`. */
export const tuners: { readonly [K in TunerKind]: TunerHalf<TunerSpecs[K]> } = {
  lora: { create: (spec, model) => new LoraTuner(spec, matchProjections(spec, model)), load: loadLora },
};

/** Attaches a method to a model. @throws TunefleetError `invalid_input` when the specification does not fit the model */
export function createTuner(spec: TunerSpec, model: TunableModel): Tuner {
  return tuners[spec.kind].create(spec, model);
}

/**
 * Reads an adapter folder for one model. PEFT's LoRA is the only format there is so far.
 * @returns the adapter, the caller's to dispose
 * @throws TunefleetError `incompatible_artifact`: damaged, not LoRA, or made for another base model
 */
export function loadAdapter(device: Device, model: AdaptableModel, folder: string): Promise<LoadedAdapter> {
  return tuners.lora.load(device, model, folder);
}
