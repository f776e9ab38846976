import { isTunefleetError } from '@tunefleet/foundation';
import type { AdapterFiles } from '@tunefleet/ml-formats';
import { unusableAdapter } from '../adapter-tensors';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { valuesOf, withoutName } from '../restuning/named-tensors';
import type { BindableModel } from '../tuner';
import { BypassTuner } from './bypass-tuner';
import { bypassSpec, bypassSpecSchema, type BypassSpec } from './spec';
import { wireBypass } from './wiring';

/** A ResTuning folder of SWIFT's or ours, for one model. @throws TunefleetError `incompatible_artifact` */
export function loadBypass(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { spec, ignored } = specOf(files.config);
  const tuner = new BypassTuner(spec, inFile(() => wireBypass(spec, model)));
  const tensors = withoutName(files.tensors, /^restuning_(?<name>[A-Za-z0-9_-]+)(?=\.bypass_blocks\.)/, 'restuning_default');
  const values = valuesOf(tuner.parameters, tensors);
  return openAdapter(model, tuner, values, ignored.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${ignored.join(', ')}`] : []);
}

function specOf(config: AdapterFiles['config']): { readonly spec: BypassSpec; readonly ignored: readonly string[] } {
  const { swift_type: _type, model_key_mapping: mapping, ...fields } = config;
  if (mapping !== null && mapping !== undefined) throw unusableAdapter(`model_key_mapping is ${JSON.stringify(mapping)?.slice(0, 100)}, which is for adapters made from several models`);
  const known = Object.keys(bypassSpecSchema.shape);
  const ignored = Object.keys(fields).filter((name) => !known.includes(name));
  const given = Object.fromEntries(Object.entries(fields).filter(([name]) => known.includes(name)));
  // A folder that says nothing of how it starts is SWIFT's, which knows one way only.
  return { spec: inFile(() => bypassSpec.parse({ bypass_init: null, ...given, kind: 'restuning-bypass' })), ignored };
}

/** Refusals of a user's fields, said of a file. */
function inFile<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!isTunefleetError(error) || error.code !== 'invalid_input') throw error;
    throw unusableAdapter(`adapter_config.json does not fit this model: ${error.message.replace(/^tuner\./, '')}`);
  }
}
