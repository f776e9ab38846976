import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import type { LoraBundle } from './lora-bundle';

/** A trainable number for each of some outputs of a map, added to them: scale * value. */
export interface OutputShift {
  /** [rows] f32 */
  readonly value: Tensor;
  /** Who gets the gradient by `value`, where that is made of a trainable tensor. */
  readonly gradientTo?: Tensor;
  readonly scale: number;
  readonly map: number;
  readonly row: number;
}

/** What is added to all outputs of a map, [size] f32; null: nothing. */
export function shiftOf(p: Primitives, shifts: readonly OutputShift[], map: number, size: number): Tensor | null {
  const parts = shifts.flatMap(({ value, scale, map: own, row }) => {
    if (own !== map) return [];
    const rows = value.dim(0);
    const zeros = (count: number): Tensor[] => (count > 0 ? [p.zeros([count], 'f32')] : []);
    const pieces = [...zeros(row), scale === 1 ? value : p.scale(value, scale), ...zeros(size - row - rows)];
    return [pieces.length === 1 ? (pieces[0] as Tensor) : p.concat(pieces, 0)];
  });
  return parts.reduce<Tensor | null>((sum, part) => (sum ? p.add(sum, part) : part), null);
}

/** Gradients by the shifts, [rows] f32 each. @param gradients per map [N, out] */
export function shiftGradients(p: Primitives, gradients: readonly (Tensor | null)[], { shifts }: LoraBundle): (Tensor | null)[] {
  const sums = gradients.map((g, map) => (g && shifts.some((shift) => shift.map === map) ? p.reduce('sum', p.cast(g, 'f32'), [0]) : null));
  return shifts.map(({ value, scale, map, row }) => {
    const sum = sums[map];
    if (!sum) return null;
    const part = p.slice(sum, [row], [value.dim(0)]);
    return scale === 1 ? part : p.scale(part, scale);
  });
}
