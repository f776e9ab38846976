import type { Tensor } from '@tunefleet/ml-tensor';
import type { PassLoss } from './objective';

/** What a pass through the model gave, on the host. */
export interface PassSums extends Pick<PassLoss, 'sums'> {
  readonly loss: number;
  readonly correct: number | null;
  /** [P] of all parameters; absent where nothing was trained. */
  readonly gradient?: Float32Array;
}

export function readSums({ loss, correct, sums }: PassLoss): PassSums {
  return { loss: readScalar(loss), correct: correct === null ? null : readScalar(correct), sums };
}

/** Passes added up. */
export class Totals {
  loss = 0;
  correct: number | null = null;
  /** [P]; null before any pass that trained. */
  gradient: Float32Array | null = null;
  readonly #sums = new Map<string, number>();

  add({ loss, correct, sums, gradient }: PassSums): void {
    this.loss += loss;
    if (correct !== null) this.correct = (this.correct ?? 0) + correct;
    for (const [name, value] of Object.entries(sums)) this.#sums.set(name, (this.#sums.get(name) ?? 0) + value);
    if (gradient) this.gradient = this.gradient === null ? gradient : addInto(this.gradient, gradient);
  }

  means(units: number): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#sums].map(([name, value]) => [name, value / Math.max(1, units)]));
  }
}

function addInto(total: Float32Array, part: Float32Array): Float32Array {
  for (let i = 0; i < total.length; i++) total[i] = (total[i] as number) + (part[i] as number);
  return total;
}

function readScalar(x: Tensor): number {
  return x.device.readFloats(x)[0] ?? NaN;
}
