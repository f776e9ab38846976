import type { Device } from '../device';
import type { Tensor } from '../tensor';
import { Tape, type Operation } from './tape';

/**
 * Runs one differentiable operation, recorded if a tape runs and an input is tracked. The way to add an op with a hand-derived gradient,
 * also from other libraries.
 * @returns the outputs, owned by the caller
 */
export function customOp(device: Device, operation: Operation): readonly Tensor[] {
  if (device.tape) return device.tape.perform(operation);
  return device.scope(() => operation.run().outputs);
}

/** `customOp` for the usual case of one output. */
export function singleOutputOp(device: Device, operation: Operation): Tensor {
  const [output] = customOp(device, operation);
  return output as Tensor;
}

/**
 * Runs `fn` now, keeps nothing of it, and runs it again in the backward pass: memory for time.
 * `fn` must be pure (fixed random keys) and depend on tracked activations only through `inputs`; trainable parameters it may capture.
 */
export function checkpoint(device: Device, inputs: readonly Tensor[], fn: () => Tensor): Tensor {
  const tape = device.tape;
  if (!tape || tape.isProbing) return device.scope(fn);
  const { output, wanted } = tape.probe(fn);
  if (wanted) tape.rememberCheckpoint(inputs, output, fn);
  return output;
}

/** Runs `fn` without recording gradients. */
export function withoutGradients<T>(device: Device, fn: () => T): T {
  const tape = device.tape;
  device.tape = null;
  try {
    return fn();
  } finally {
    device.tape = tape;
  }
}

/**
 * Evaluates `fn`, whose result has a rank 0 f32 tensor `loss`, and differentiates the loss.
 * @param parameters leaves to differentiate by; borrowed
 * @returns the result of `fn` and a gradient per parameter (null where the loss does not depend on it), all owned by the caller
 */
export function gradients<T extends { readonly loss: Tensor }>(
  device: Device,
  parameters: readonly Tensor[],
  fn: () => T,
): { readonly result: T; readonly gradients: readonly (Tensor | null)[] } {
  const tape = Tape.start(device, parameters);
  try {
    return device.scope(() => {
      const result = tape.recording(() => device.scope(fn));
      if (tape.isTracked(result.loss)) tape.walk([[result.loss, device.scalar(1, 'f32')]]);
      return { result, gradients: parameters.map((parameter) => tape.take(parameter)) };
    });
  } finally {
    tape.dispose();
  }
}
