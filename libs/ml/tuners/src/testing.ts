import type { CausalLm, ForwardOptions, TokenBatch } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, headLogits, type Device, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel, DropoutKey, StartContext, Tuner } from './tuner';

/** For tuners whose start values need no text. */
export function startWith(model: BindableModel): StartContext {
  return {
    model,
    tokenise(text) {
      throw new Error(`"${text}" would have to be tokenised`);
    },
  };
}

/** One tensor per parameter, of the enclosing scope. */
export function parametersOf(device: Device, { parameters }: Pick<Tuner, 'parameters'>, values: Float32Array): Tensor[] {
  let at = 0;
  return parameters.map(({ shape }) => device.tensor(values.slice(at, (at += shape.reduce((product, size) => product * size, 1))), shape, 'f32'));
}

/** Logits of every token, [rows * columns, V]. */
export function logitsWith(model: CausalLm, batch: TokenBatch, options: ForwardOptions = {}): Float32Array {
  return model.device.scope(() => model.device.readFloats(headLogits(model.forward(batch, options), headOf(model, options.adapter ?? null))));
}

export interface PassOptions extends Pick<ForwardOptions, 'recomputeBlocks' | 'outputRows'> {
  readonly dropout?: DropoutKey;
}

/** Mean loss over the labelled tokens, each predicted from the one before in its row, and the gradient of every parameter. @param labels [rows * columns], -100: none */
export function trainingPass(model: CausalLm, tuner: Tuner, values: Float32Array, batch: TokenBatch, labels: Int32Array, { dropout = null, ...options }: PassOptions = {}) {
  const { device } = model;
  const next = Int32Array.from(labels, (_, i) => ((i + 1) % batch.columns === 0 ? -100 : (labels[i + 1] ?? -100)));
  const counted = next.reduce((sum, label) => sum + (label === -100 ? 0 : 1), 0);
  return device.scope(() => {
    const parameters = parametersOf(device, tuner, values);
    const adapter = tuner.bind(model, parameters, dropout);
    const { result, gradients: grads } = gradients(device, parameters, () => {
      const wanted = options.outputRows ? Int32Array.from(options.outputRows, (row) => next[row] ?? -100) : next;
      return headCrossEntropy(model.forward(batch, { adapter, ...options }), headOf(model, adapter), wanted, { scale: 1 / counted });
    });
    return { loss: device.readFloats(result.loss)[0] ?? NaN, gradients: grads.map((gradient) => (gradient ? device.readFloats(gradient) : new Float32Array())) };
  });
}

export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(difference <= most)) most = difference;
  }
  return most;
}

export function largest(values: ArrayLike<number>): number {
  return Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** Where a parameter lies among a tuner's values. */
export interface Slot {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

export function slotsOf({ parameters }: Pick<Tuner, 'parameters'>): Slot[] {
  let offset = 0;
  return parameters.map(({ name, shape }) => {
    const slot = { name, offset, size: shape.reduce((product, each) => product * each, 1) };
    offset += slot.size;
    return slot;
  });
}
