import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { linearGroup, selectOutputs, type Device, type FloatDType, type FrozenMap, type Primitives } from '@tunefleet/ml-tensor';
import type { FusedForward, FusedGroup, FusedMap } from './fused-group';

/**
 * A fused group as weights of its own, W' = g W l + B A and bias + c: the base's stay as they are, whole again the moment these are freed.
 * @returns tensors of the current scope, in `dtype`
 */
export function mergedForward(device: Device, group: ProjectionGroup, fused: FusedGroup, dtype: FloatDType): FusedForward {
  const maps = group.maps.map((_, index) => mergedMap(device.primitives, group, index, fused, dtype));
  const tensors = maps.flatMap(({ weight, bias }) => [weight.value, ...(bias ? [bias] : [])]);
  return { run: (x, residual) => linearGroup(x, maps, { residual }), change: { type: 'opaque' }, tensors };
}

function mergedMap(p: Primitives, group: ProjectionGroup, index: number, { a, maps, inputs }: FusedGroup, dtype: FloatDType): FrozenMap {
  const { weight, bias } = group.maps[index] as FrozenMap;
  const { b, gain, shift } = maps[index] as FusedMap;
  const { layout, outSize, inSize } = weight;
  const outFirst = layout === 'outIn';
  let value = p.cast(selectOutputs(weight, 0, outSize).value, 'f32');
  for (const { path, map, row, outSize: rows } of group.members) {
    const factor = map === index ? inputs.get(path) : undefined;
    if (!factor) continue;
    // 1 + own (l - 1), with own 1 at the member's outputs.
    const own = value.device.tensor(Float32Array.from({ length: outSize }, (_, output) => (output >= row && output < row + rows ? 1 : 0)), [1, outSize], 'f32');
    const change = p.sub(factor, value.device.scalar(1, 'f32'));
    const spread = outFirst ? p.matMul(own, change, true, false) : p.matMul(change, own, true, false);
    value = p.add(value, p.mul(value, spread));
  }
  if (gain) value = p.mul(value, p.reshape(gain, outFirst ? [outSize, 1] : [1, outSize]));
  if (a && b) value = p.add(value, outFirst ? p.matMul(b, a, true, false) : p.matMul(a, b, true, false));
  const wideBias = bias && p.cast(bias, 'f32');
  const added = wideBias && shift ? p.add(wideBias, shift) : (wideBias ?? shift);
  return { weight: { value: p.cast(value, dtype), layout, outSize, inSize }, bias: added && p.cast(added, dtype) };
}
