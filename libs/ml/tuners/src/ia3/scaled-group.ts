import type { GroupMember, ProjectionGroup } from '@tunefleet/ml-nn';
import { add, concatColumns, linearGroup, mul, splitAxis, type Device, type FrozenMap, type Tensor } from '@tunefleet/ml-tensor';
import type { ChannelFactor } from '../composition/composable-hook';

type Factors = ReadonlyMap<string, ChannelFactor>;

/** A group's maps with factors on inputs or outputs of its members, by their paths. @returns per map [N, out], of the current scope */
export function scaledGroup(x: Tensor, group: ProjectionGroup, residual: Tensor | null, factors: Factors): readonly Tensor[] {
  const scaled = group.maps.map((map, index) => {
    const members = group.members.filter((member) => member.map === index);
    const input = members.length === 1 ? factorOf(members[0], 'input', factors) : null;
    const [output] = linearGroup(input ? mul(x, input) : x, [map]) as [Tensor];
    return members.length === 1 && input ? output : scaledOutputs(x, output, map, members, factors);
  });
  return residual ? [add(residual, scaled[0] as Tensor)] : scaled;
}

/** The factors of all outputs of a map, [1, out] f32; null where none has any. */
export function outputRow(device: Device, members: readonly GroupMember[], factors: Factors): Tensor | null {
  const byOutput = members.map((member) => factorOf(member, 'output', factors));
  if (byOutput.every((factor) => factor === null)) return null;
  return concatColumns(byOutput.map((factor, index) => factor ?? ones(device, members[index]?.outSize ?? 0)));
}

export function factorOf(member: GroupMember | undefined, side: ChannelFactor['side'], factors: Factors): Tensor | null {
  const found = factors.get(member?.path ?? '');
  return found?.side === side ? found.factor : null;
}

/** The outputs of a map that may stand for several projections, one beside the other. */
function scaledOutputs(x: Tensor, output: Tensor, map: FrozenMap, members: readonly GroupMember[], factors: Factors): Tensor {
  const byInput = members.map((member) => factorOf(member, 'input', factors));
  const whole = byInput.some((factor) => factor !== null) ? withScaledInputs(x, output, map, members, byInput) : output;
  const row = outputRow(x.device, members, factors);
  return row ? mul(whole, row) : whole;
}

/** Where one of stacked projections has a scaled input, the map is applied to that once more and its part taken. */
function withScaledInputs(x: Tensor, output: Tensor, map: FrozenMap, members: readonly GroupMember[], factors: readonly (Tensor | null)[]): Tensor {
  const sizes = members.map(({ outSize }) => outSize);
  const plain = splitAxis(output, sizes, 1);
  return concatColumns(
    plain.map((part, index) => {
      const factor = factors[index];
      return factor ? (splitAxis(linearGroup(mul(x, factor), [map])[0] as Tensor, sizes, 1)[index] as Tensor) : part;
    }),
  );
}

function ones(device: Device, size: number): Tensor {
  return device.tensor(new Float32Array(size).fill(1), [1, size], 'f32');
}
