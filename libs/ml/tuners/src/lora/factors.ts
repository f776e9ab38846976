import { loraAdapterOf, type AdapterFiles } from '@tunefleet/ml-formats';
import { floatsOf, unusableAdapter } from '../adapter-tensors';
import { withinTimeLimit } from '../matching/time-limit';
import type { BaseOnDisk } from '../weight-changes';
import { specOf } from './load';
import type { LoraTarget } from './match';
import { aOf, bOf } from './parameters';
import { plannedBy } from './planned-by-file';

/** A target with its factors; the update of its map is `scale` B A. */
export interface LoraFactorsOnDisk extends LoraTarget {
  /** [R, in] */
  readonly a: Float32Array;
  /** [out, R] */
  readonly b: Float32Array;
}

/**
 * The factors of a LoRA on linear maps only.
 * @param purpose of whoever asks, for the message: `be combined`
 * @throws TunefleetError `incompatible_artifact`: not LoRA, or more than that
 */
export function loraFactorsOf(base: BaseOnDisk, files: AdapterFiles, purpose: string): LoraFactorsOnDisk[] {
  const file = loraAdapterOf(files);
  const refuse = (what: string) => unusableAdapter(`${what}, which cannot ${purpose}; merge it into the base instead`);
  const spec = specOf(file.config);
  if (spec.use_dora) throw refuse('it is a DoRA');
  if (spec.lora_bias) throw refuse('it has lora_bias');
  const { plan, tensors } = withinTimeLimit(() => plannedBy(file, base, (table) => base.table(table)));
  if (plan.biases.length > 0) throw refuse('it trains biases');
  if (plan.embedding) throw refuse(`it adapts the embedding "${plan.embedding.path}"`);
  const [whole] = [...plan.saved, ...plan.norms];
  if (whole) throw refuse(`it trains "${whole.path}" whole`);
  if (plan.tokens) throw refuse('it trains tokens of the embedding');
  const floats = (name: string): Float32Array => {
    const tensor = tensors.get(name);
    return tensor ? floatsOf(tensor) : new Float32Array();
  };
  return plan.targets.map((target) => ({ ...target, a: floats(aOf(target.path)), b: floats(bOf(target.path)) }));
}
