import type { AdapterFiles } from '@tunefleet/ml-formats';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { specOfFile, valuesOf, withoutName } from '../named-parameters/named-tensors';
import type { BindableModel } from '../tuner';
import { BypassTuner } from './bypass-tuner';
import { bypassSpec, bypassSpecSchema } from './spec';
import { wireBypass } from './wiring';

/** A ResTuning folder of SWIFT's or ours, for one model. @throws TunefleetError `incompatible_artifact` */
export function loadBypass(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { value: tuner, notices } = specOfFile(files.config, Object.keys(bypassSpecSchema.shape), (fields) => {
    // A folder that says nothing of how it starts is SWIFT's, which knows one way only.
    const spec = bypassSpec.parse({ bypass_init: null, ...fields, kind: 'restuning-bypass' });
    return new BypassTuner(spec, wireBypass(spec, model));
  });
  const tensors = withoutName(files.tensors, /^restuning_(?<name>[A-Za-z0-9_-]+)(?=\.bypass_blocks\.)/, 'restuning_default');
  return openAdapter(model, tuner, valuesOf(tuner.parameters, tensors), notices);
}
