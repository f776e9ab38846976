/**
 * Changes of a group of linear maps that nest in the given order, each changing what those before it made of the map, as one. Per map and in any order of LoRA,
 * DoRA and IA3 that is
 *   y = g (W (l x)) + bias + c + B A x
 * with l and g factors per input and output channel and A as long as all ranks together. A gain after updates goes into their B, a factor of the input into their A.
 */
import { assertNever, invariant, TunefleetError } from '@tunefleet/foundation';
import type { GroupMember, ProjectionGroup } from '@tunefleet/ml-nn';
import { add, linear, linearGroup, mul, type Device, type FloatDType, type LoraBundle, type Primitives, type Tensor } from '@tunefleet/ml-tensor';
import { outputRow, scaledGroup } from '../ia3/scaled-group';
import type { ChannelFactor, GroupChange } from './composable-hook';

export interface WeightedChange {
  readonly change: GroupChange;
  /** How much of the change: 1 is all of it, 0 none. */
  readonly weight: number;
}

/** All tensors f32. */
export interface FusedGroup {
  /** [R, in]; null: no low-rank update. */
  readonly a: Tensor | null;
  readonly maps: readonly FusedMap[];
  /** Factors of the input, [1, in], by the path of the member that has them. */
  readonly inputs: ReadonlyMap<string, Tensor>;
}

export interface FusedMap {
  /** [R, out]; there where `a` is. */
  readonly b: Tensor | null;
  /** g, [out]; null: 1. */
  readonly gain: Tensor | null;
  /** c, [out]; null: 0. */
  readonly shift: Tensor | null;
}

/** @returns tensors of the current scope; some may be those of the changes */
export function fuse(device: Device, group: ProjectionGroup, changes: readonly WeightedChange[]): FusedGroup {
  const nothing: FusedGroup = { a: null, maps: group.maps.map(() => ({ b: null, gain: null, shift: null })), inputs: new Map() };
  return changes.reduce((fused, { change, weight }) => {
    switch (change.type) {
      case 'low-rank':
        return withUpdates(device, group, fused, change.bundle, weight);
      case 'factors':
        return withFactors(device, group, fused, change.byPath, weight);
      case 'opaque':
        throw new TunefleetError('invariant', 'what was made one cannot be made one with others again');
      default:
        return assertNever(change);
    }
  }, nothing);
}

function withUpdates(device: Device, group: ProjectionGroup, fused: FusedGroup, bundle: LoraBundle, weight: number): FusedGroup {
  invariant(bundle.updates.length === 0 && bundle.shifts.length === 0, 'an adapter that is being trained cannot be made one with others');
  const p = device.primitives;
  const a = p.cast(bundle.a, 'f32');
  const maps = fused.maps.map((before, map) => {
    const gain = partOf(p, wide(p, bundle.decomposition?.gains[map]), weight);
    const after = gained(p, before, gain);
    const b = scaled(p, wide(p, bundle.b[map]), weight);
    const { outSize } = group.maps[map]?.weight ?? { outSize: 0 };
    const stacked = [...(fused.a ? [after.b ?? p.zeros([fused.a.dim(0), outSize], 'f32')] : []), b ?? p.zeros([a.dim(0), outSize], 'f32')];
    return { b: stackedRows(p, stacked), gain: after.gain, shift: sum(p, after.shift, scaled(p, wide(p, bundle.shift[map]), weight)) };
  });
  return { ...fused, a: stackedRows(p, fused.a ? [fused.a, a] : [a]), maps };
}

function withFactors(device: Device, group: ProjectionGroup, fused: FusedGroup, byPath: ReadonlyMap<string, ChannelFactor>, weight: number): FusedGroup {
  const p = device.primitives;
  const scaledInputs = group.members.reduce((state, member) => {
    const found = byPath.get(member.path);
    return found?.side === 'input' ? withInputFactor(p, group, state, member, partOf(p, p.cast(found.factor, 'f32'), weight) as Tensor) : state;
  }, fused);
  const maps = scaledInputs.maps.map((before, map) => {
    const row = outputRow(device, group.members.filter((member) => member.map === map), byPath);
    if (!row) return before;
    const gain = partOf(p, p.reshape(row, [row.dim(1)]), weight) as Tensor;
    const bias = group.maps[map]?.bias;
    const after = gained(p, before, gain);
    // The bias is scaled, too: l (bias + c) = bias + (l c + (l - 1) bias).
    return { ...after, shift: bias ? sum(p, after.shift, p.mul(p.cast(bias, 'f32'), p.sub(gain, device.scalar(1, 'f32')))) : after.shift };
  });
  return { ...scaledInputs, maps };
}

/** Factors of one member's input: updates of other members do not see them, so where there are such, both A and its scaled form are kept. */
function withInputFactor(p: Primitives, group: ProjectionGroup, { a, maps, inputs }: FusedGroup, member: GroupMember, factor: Tensor): FusedGroup {
  const known = inputs.get(member.path);
  const factors = new Map([...inputs, [member.path, known ? p.mul(known, factor) : factor]]);
  if (!a) return { a, maps, inputs: factors };
  const scaledA = p.mul(a, factor);
  if (group.members.length === 1) return { a: scaledA, maps, inputs: factors };
  const own = group.maps.map(({ weight: { outSize } }, map) => ones(p, outSize, map === member.map ? member : null));
  return {
    a: p.concat([a, scaledA], 0),
    maps: maps.map((map, index) => {
      const b = map.b as Tensor;
      const mine = p.mul(b, own[index] as Tensor);
      return { ...map, b: p.concat([p.sub(b, mine), mine], 0) };
    }),
    inputs: factors,
  };
}

/** How a fused group computes. */
export interface FusedForward {
  /** Differentiable by x. */
  run(x: Tensor, residual: Tensor | null): readonly Tensor[];
  readonly change: GroupChange;
  /** What it holds. */
  readonly tensors: readonly Tensor[];
}

/** @returns tensors of the current scope, in the compute dtype where they are factors of products */
export function fusedForward(device: Device, group: ProjectionGroup, fused: FusedGroup, dtype: FloatDType): FusedForward {
  if (fused.inputs.size > 0) return scaledInputsForward(device, group, fused);
  const { bundle, tensors } = fusedBundle(device, group, fused, dtype);
  return { run: (x, residual) => linearGroup(x, group.maps, { lora: bundle, residual }), change: { type: 'low-rank', bundle }, tensors };
}

/** A group without factors of inputs, as one bundle. @returns tensors of the current scope */
export function fusedBundle(device: Device, group: ProjectionGroup, { a, maps }: FusedGroup, dtype: FloatDType): { readonly bundle: LoraBundle; readonly tensors: readonly Tensor[] } {
  const p = device.primitives;
  const typed = (x: Tensor | null): Tensor | null => x && p.cast(x, dtype);
  const none = maps.map(() => null);
  const gains = maps.map(({ gain }) => typed(gain));
  const bundle: LoraBundle = {
    updates: [],
    a: p.cast(a ?? noUpdate(p, group), dtype),
    b: maps.map(({ b }) => typed(b)),
    decomposition: gains.some((gain) => gain !== null) ? { magnitudes: [], gains, wideGains: none, norms: none, factors: none } : null,
    shifts: [],
    shift: maps.map(({ shift }) => typed(shift)),
  };
  return { bundle, tensors: [bundle.a, ...bundle.b, ...gains, ...bundle.shift].filter((tensor) => tensor !== null) };
}

/** The base's products have an input of their own here, apart from the updates'. */
function scaledInputsForward(device: Device, group: ProjectionGroup, { a: updates, maps, inputs }: FusedGroup): FusedForward {
  const p = device.primitives;
  const a = updates ?? noUpdate(p, group);
  const factors = new Map([...inputs].map(([path, factor]): [string, ChannelFactor] => [path, { side: 'input', factor }]));
  const unbiased: ProjectionGroup = { members: group.members, maps: group.maps.map(({ weight }) => ({ weight, bias: null })) };
  const ends = maps.map(({ b, gain, shift }, index) => {
    const { weight, bias } = group.maps[index] as ProjectionGroup['maps'][number];
    const added = sum(p, wide(p, bias), shift);
    return { gain, up: b ? p.transpose(b, [1, 0]) : p.zeros([weight.outSize, a.dim(0)], 'f32'), added };
  });
  const run: FusedForward['run'] = (x, residual) =>
    x.device.scope(() => {
      const narrow = linear(x, a);
      const outputs = scaledGroup(x, unbiased, null, factors).map((base, index) => {
        const { gain, up, added } = ends[index] as (typeof ends)[number];
        return add(gain ? mul(base, gain) : base, linear(narrow, up, added));
      });
      return residual ? [add(residual, outputs[0] as Tensor)] : outputs;
    });
  return { run, change: { type: 'opaque' }, tensors: [a, ...inputs.values(), ...ends.flatMap(({ gain, up, added }) => [gain, up, added])].filter((tensor) => tensor !== null) };
}

/** [1, in] of zeros: an update that changes nothing. */
function noUpdate(p: Primitives, { maps }: ProjectionGroup): Tensor {
  return p.zeros([1, maps[0]?.weight.inSize ?? 0], 'f32');
}

/** g times everything but the bias, which a gain leaves alone. */
function gained(p: Primitives, { b, gain, shift }: FusedMap, factor: Tensor | null): FusedMap {
  if (!factor) return { b, gain, shift };
  return { b: b && p.mul(b, factor), gain: gain ? p.mul(gain, factor) : factor, shift: shift && p.mul(shift, factor) };
}

/** 1 + weight (factor - 1) */
function partOf(p: Primitives, factor: Tensor | null, weight: number): Tensor | null {
  if (!factor || weight === 1) return factor;
  return p.add(p.scale(factor, weight), factor.device.scalar(1 - weight, 'f32'));
}

function scaled(p: Primitives, x: Tensor | null, weight: number): Tensor | null {
  return x && weight !== 1 ? p.scale(x, weight) : x;
}

function sum(p: Primitives, x: Tensor | null, y: Tensor | null): Tensor | null {
  return x && y ? p.add(x, y) : (x ?? y);
}

function wide(p: Primitives, x: Tensor | null | undefined): Tensor | null {
  return x ? p.cast(x, 'f32') : null;
}

function stackedRows(p: Primitives, parts: readonly Tensor[]): Tensor {
  return parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, 0);
}

/** [1, size] with ones at the outputs of a member, zeros elsewhere. */
function ones(p: Primitives, size: number, member: GroupMember | null): Tensor {
  const row = p.zeros([1, size], 'f32');
  if (!member) return row;
  const { device } = row;
  return device.tensor(Float32Array.from({ length: size }, (_, index) => (index >= member.row && index < member.row + member.outSize ? 1 : 0)), [1, size], 'f32');
}
