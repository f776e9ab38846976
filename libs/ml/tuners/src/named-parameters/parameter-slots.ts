import { assertNever, fillNormal, fillUniform } from '@tunefleet/foundation';
import type { ParameterInfo } from '../tuner';

/** A parameter and how it starts. */
export interface ParameterSlot extends ParameterInfo {
  readonly start: StartValue;
}

export type StartValue =
  /** In [-bound, bound). */
  | { readonly type: 'uniform'; readonly bound: number }
  | { readonly type: 'normal'; readonly deviation: number }
  | { readonly type: 'constant'; readonly value: number };

export const ZERO: StartValue = { type: 'constant', value: 0 };
export const ONE: StartValue = { type: 'constant', value: 1 };

/** Xavier-uniform for a map between so many numbers. @see Glorot and Bengio 2010 */
export function xavier(inSize: number, outSize: number): StartValue {
  return { type: 'uniform', bound: Math.sqrt(6 / (inSize + outSize)) };
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

export function slotsCount(slots: readonly ParameterInfo[]): number {
  return slots.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
}

/** Start values of all slots, one after the other. Element i of slot k depends on (seed, k, i) only. */
export function startOf(slots: readonly ParameterSlot[], seed: number): Float32Array {
  const all = new Float32Array(slotsCount(slots));
  let at = 0;
  for (const [stream, { shape, start }] of slots.entries()) {
    const part = all.subarray(at, (at += sizeOf(shape)));
    switch (start.type) {
      case 'uniform':
        fillUniform(part, start.bound, seed, stream);
        break;
      case 'normal':
        fillNormal(part, start.deviation, seed, stream);
        break;
      case 'constant':
        part.fill(start.value);
        break;
      default:
        assertNever(start, 'start value');
    }
  }
  return all;
}
