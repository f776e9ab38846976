import type { AdapterFiles } from '@tunefleet/ml-formats';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { specOfFile, valuesOf } from '../named-parameters/named-tensors';
import { sizeOf } from '../named-parameters/parameter-slots';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import type { BaseOnDisk, WeightChanges } from '../weight-changes';
import { createFullTuner } from './full-tuner';
import { fullSpec, fullSpecSchema } from './spec';

/** @throws TunefleetError `incompatible_artifact` */
export function loadFull(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { tuner, notices } = tunerOf(model, files);
  return openAdapter(model, tuner, valuesOf(tuner.parameters, files.tensors), notices);
}

/** Every trained tensor in place of the base's. @throws TunefleetError `incompatible_artifact` */
export function mergeFull(base: BaseOnDisk, files: AdapterFiles): WeightChanges {
  const { tuner, notices } = tunerOf(base, files);
  const values = valuesOf(tuner.parameters, files.tensors);
  let at = 0;
  const byTensor = new Map(
    tuner.parameters.map(({ name, shape }) => {
      const part = values.subarray(at, (at += sizeOf(shape)));
      return [name, { from: name, apply: (weight: Float32Array) => weight.set(part) }] as const;
    }),
  );
  return { byTensor, unties: false, notices };
}

function tunerOf(model: TunableModel, { config }: AdapterFiles): { readonly tuner: Tuner; readonly notices: readonly string[] } {
  const { tunefleet_type: _type, base_model_name_or_path: _base, revision: _revision, ...fields } = config;
  const { value: tuner, notices } = specOfFile(fields, Object.keys(fullSpecSchema.shape), (given) => createFullTuner(fullSpec.parse({ ...given, kind: 'full' }), model));
  return { tuner, notices };
}
