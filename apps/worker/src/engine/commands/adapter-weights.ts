import { TunefleetError } from '@tunefleet/foundation';

/** What `--weights` says of so many adapters, 1 each by default. @throws TunefleetError `invalid_input` */
export function adapterWeights(text: string | undefined, adapters: number): readonly number[] {
  const weights = text?.split(',').map((each) => numberOf('weights', each)) ?? new Array<number>(adapters).fill(1);
  if (weights.length !== adapters) throw new TunefleetError('invalid_input', `--weights has ${weights.length} numbers for ${adapters} adapters`);
  return weights;
}

export function numberOf(option: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new TunefleetError('invalid_input', `--${option} holds "${text}", which is not a number`);
  return value;
}
