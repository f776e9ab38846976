import { invariant, isTunefleetError } from '@tunefleet/foundation';
import type { AdapterFiles, AdapterTensor } from '@tunefleet/ml-formats';
import { floatsOf, tensorOf, unusableAdapter } from '../adapter-tensors';
import type { ParameterInfo } from '../tuner';
import { sizeOf, slotsCount } from './parameter-slots';

/**
 * Tensors whose names hold the adapter's, as SWIFT writes them, under names that hold another.
 * @param pattern finds the segment, with the adapter's name in the group `name`
 * @throws TunefleetError `incompatible_artifact` where two adapters lie in one file
 */
export function withoutName(tensors: readonly AdapterTensor[], pattern: RegExp, replacement: string): AdapterTensor[] {
  const found = new Set<string>();
  const renamed = tensors.map((tensor) => {
    const name = pattern.exec(tensor.name)?.groups?.['name'];
    if (name === undefined) return tensor;
    found.add(name);
    return { ...tensor, name: tensor.name.replace(pattern, replacement) };
  });
  if (found.size > 1) throw unusableAdapter(`its file holds the tensors of ${found.size} adapters: ${[...found].slice(0, 5).join(', ')}; give each a folder of its own`);
  return renamed;
}

/** The values of all parameters, one after the other. @throws TunefleetError `incompatible_artifact` for tensors that lack, are too many or of another shape */
export function valuesOf(parameters: readonly ParameterInfo[], tensors: readonly AdapterTensor[]): Float32Array {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const values = new Float32Array(slotsCount(parameters));
  const missing = parameters.filter(({ name }) => !byName.has(name)).map(({ name }) => name);
  if (missing.length > 0) throw unusableAdapter(`${missing.length} tensors are missing: ${listed(missing)}`);
  let at = 0;
  for (const { name, shape } of parameters) {
    const tensor = byName.get(name) as AdapterTensor;
    byName.delete(name);
    if (tensor.shape.join() !== shape.join()) {
      throw unusableAdapter(`"${name}" is [${tensor.shape.join(', ')}] in the file and [${shape.join(', ')}] for this model; it was made for another base model, or its configuration was changed`);
    }
    const part = floatsOf(tensor);
    values.set(part, at);
    at += part.length;
  }
  if (byName.size > 0) throw unusableAdapter(`${byName.size} of its tensors have no place in this model: ${listed([...byName.keys()])}`);
  return values;
}

/** All parameters under their names. */
export function tensorsOf(parameters: readonly ParameterInfo[], values: Float32Array): AdapterTensor[] {
  let at = 0;
  const tensors = parameters.map(({ name, shape }) => {
    const tensor = tensorOf(name, shape, values, at);
    at += sizeOf(shape);
    return tensor;
  });
  invariant(at === values.length, `the adapter has ${at} parameters, got ${values.length} values`);
  return tensors;
}

/**
 * What `adapter_config.json` says, read as a user's fields.
 * @param known fields of the method; others are ignored, which a notice says   @param read may refuse as for a user
 * @throws TunefleetError `incompatible_artifact`
 */
export function specOfFile<T>(config: AdapterFiles['config'], known: readonly string[], read: (fields: Readonly<Record<string, unknown>>) => T): { readonly value: T; readonly notices: readonly string[] } {
  const { swift_type: _type, model_key_mapping: mapping, ...fields } = config;
  if (mapping !== null && mapping !== undefined) throw unusableAdapter(`model_key_mapping is ${JSON.stringify(mapping)?.slice(0, 100)}, which is for adapters made from several models`);
  const ignored = Object.keys(fields).filter((name) => !known.includes(name));
  const given = Object.fromEntries(Object.entries(fields).filter(([name]) => known.includes(name)));
  try {
    return { value: read(given), notices: ignored.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${ignored.slice(0, 20).join(', ')}`] : [] };
  } catch (error) {
    if (!isTunefleetError(error) || error.code !== 'invalid_input') throw error;
    throw unusableAdapter(`adapter_config.json does not fit this model: ${error.message.replace(/^tuner\./, '')}`);
  }
}

function listed(names: readonly string[]): string {
  return names.slice(0, 5).join(', ') + (names.length > 5 ? ', ...' : '');
}
