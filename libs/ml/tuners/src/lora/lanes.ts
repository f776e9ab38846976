import { invariant } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { laneStack, type LaneUpdate, type LoraStack, type Tensor } from '@tunefleet/ml-tensor';
import type { LaneHook } from '../composition/lane-hook';
import type { BindableModel, TunableModel } from '../tuner';
import type { LoraPlan, LoraTarget } from './match';
import type { LoraParameter } from './parameters';
import type { LoraSpec } from './spec';
import { isWeightStart } from './start/weight-start';

/** Equal for LoRAs whose factors have the same shapes everywhere; null where there is more than factors of the blocks' maps, or every step has masks of its own. */
export function loraLaneKey(spec: LoraSpec, { targets, biases, embedding, saved, norms, tokens }: LoraPlan, parameters: readonly LoraParameter[], { projections }: TunableModel): string | null {
  const inBlocks = new Set(projections.map(({ path }) => path));
  const onlyFactors = !spec.use_dora && !spec.lora_bias && biases.length === 0 && !embedding && saved.length + norms.length === 0 && !tokens && targets.every(({ path }) => inBlocks.has(path));
  if (!onlyFactors || spec.lora_dropout > 0 || isWeightStart(spec.init_lora_weights)) return null;
  return JSON.stringify(parameters.map(({ name, shape }) => [name, shape]));
}

/**
 * @param targets of every lane, equal but for their scales
 * @param values A and Bᵀ of every target, [K, R, in] and [K, R, out]
 * @returns a hook per lane; tensors of the enclosing scope
 */
export function loraLanes(model: BindableModel, targets: readonly (readonly LoraTarget[])[], values: readonly Tensor[]): LaneHook[] {
  const [first = []] = targets;
  invariant(values.length === 2 * first.length, `${first.length} targets were bound to ${values.length} tensors`);
  const byPath = new Map(first.map(({ path }, index) => [path, { a: values[2 * index] as Tensor, b: values[2 * index + 1] as Tensor, scales: targets.map((lane) => lane[index]?.scale ?? NaN) }]));
  const stacks = new Map<ProjectionGroup, LoraStack>();
  for (const group of model.projectionGroups) {
    const updates = group.members.flatMap(({ path, map, row }): LaneUpdate[] => {
      const factors = byPath.get(path);
      return factors ? [{ ...factors, map, row }] : [];
    });
    if (updates.length > 0) stacks.set(group, laneStack(model.device, updates, group.maps.map(({ weight }) => weight), model.computeDtype));
  }
  return targets.map((_, lane) => ({ lane, stackOf: (group) => stacks.get(group) ?? null }));
}
