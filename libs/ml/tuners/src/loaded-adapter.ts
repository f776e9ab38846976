import { invariant } from '@tunefleet/foundation';
import type { ModelHook } from '@tunefleet/ml-nn';
import { HeldPrefix } from './held-prefix';
import type { BindableModel, Tuner } from './tuner';

/** An adapter read from a folder, ready for inference; `tuner` and `values` are there to train it further or save it. */
export interface LoadedAdapter {
  /** Usable until `dispose`. Without gradients: to train, bind `tuner` to tensors of one's own. */
  readonly hook: ModelHook;
  readonly tuner: Tuner;
  /** All parameters one after the other, f32. */
  readonly values: Float32Array;
  /** What the user should be told. */
  readonly notices: readonly string[];
  dispose(): void;
}

/** Puts an adapter's values on the model's device. Keys and values of virtual tokens, which hooks compute when they are first asked for, are held until `dispose`. */
export function openAdapter(model: BindableModel, tuner: Tuner, values: Float32Array, notices: readonly string[] = []): LoadedAdapter {
  invariant(values.length === tuner.parameterCount, `${values.length} values for a tuner of ${tuner.parameterCount} parameters`);
  const { device } = model;
  const { hook: bound, tensors } = device.detached(() => {
    let at = 0;
    const parameters = tuner.parameters.map(({ shape }) => device.tensor(values.slice(at, (at += shape.reduce((product, size) => product * size, 1))), shape, 'f32'));
    if (tuner.bindForInference) return tuner.bindForInference(model, parameters);
    const handles = device.memory.liveHandles;
    const hook = tuner.bind(model, parameters, null);
    invariant(device.memory.liveHandles === handles, `${tuner.kind} made tensors while it was bound, which nobody would free`);
    return { hook, tensors: parameters };
  });
  const held = bound.prefix ? new HeldPrefix(device, bound.prefix) : null;
  const dispose = (): void => {
    held?.[Symbol.dispose]();
    for (const tensor of tensors) tensor.dispose();
  };
  return { hook: held ? { ...bound, prefix: held } : bound, tuner, values, notices, dispose };
}
