import { assertNever, fillNormal, fillUniform } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import type { LoraBundle, Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import type { LoraTarget } from './match';
import { aOf, bOf, magnitudeOf, placesOf, sizeOf, type LoraParameter } from './parameters';
import type { LoraSpec } from './spec';

/** Binds tensors, one per parameter, to the groups of a model; tensors of the enclosing scope. */
export type BindBundles = (tensors: readonly Tensor[]) => ReadonlyMap<ProjectionGroup, LoraBundle>;

/**
 * Start values of every parameter, one after the other. Element i of a target's A and B depends on (seed, target, i) only; magnitudes are the row lengths of the
 * weights as they then are.
 * @see huggingface/peft `tuners/lora/layer.py`, `reset_lora_parameters`
 */
export function loraInitialValues(spec: LoraSpec, targets: readonly LoraTarget[], parameters: readonly LoraParameter[], seed: number, start: { readonly model: BindableModel; readonly bundles: BindBundles }): Float32Array {
  const places = placesOf(parameters);
  const values = new Float32Array(parameters.reduce((sum, parameter) => sum + sizeOf(parameter), 0));
  const partOf = (name: string): Float32Array => {
    const { parameter, offset } = places.get(name) as { parameter: LoraParameter; offset: number };
    return values.subarray(offset, offset + sizeOf(parameter));
  };
  for (const [index, { path, rank, inSize }] of targets.entries()) {
    const [a, b] = [partOf(aOf(path)), partOf(bOf(path))];
    const [streamA, streamB] = [2 * index, 2 * index + 1];
    const init = spec.init_lora_weights;
    switch (init) {
      case true:
        fillUniform(a, 1 / Math.sqrt(inSize), seed, streamA);
        break;
      case 'gaussian':
        fillNormal(a, 1 / rank, seed, streamA);
        break;
      case false:
        fillUniform(a, 1 / Math.sqrt(inSize), seed, streamA);
        fillUniform(b, 1 / Math.sqrt(rank), seed, streamB);
        break;
      default:
        assertNever(init, 'init_lora_weights');
    }
  }
  if (spec.use_dora) fillMagnitudes(values, parameters, start, partOf);
  return values;
}

function fillMagnitudes(values: Float32Array, parameters: readonly LoraParameter[], { model, bundles }: { readonly model: BindableModel; readonly bundles: BindBundles }, partOf: (name: string) => Float32Array): void {
  const { device } = model;
  device.scope(() => {
    let at = 0;
    const tensors = parameters.map((parameter) => device.tensor(values.slice(at, (at += sizeOf(parameter))), parameter.shape, 'f32'));
    for (const [group, { decomposition }] of bundles(tensors)) {
      const norms = decomposition?.norms.map((norm) => norm && device.readFloats(norm)) ?? [];
      for (const { path, map, row, outSize } of group.members) {
        const norm = norms[map];
        if (norm && parameters.some(({ name }) => name === magnitudeOf(path))) partOf(magnitudeOf(path)).set(norm.subarray(row, row + outSize));
      }
    }
  });
}
