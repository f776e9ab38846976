import type { AdapterTensor } from '@tunefleet/ml-formats';
import { floatsOf, unusableAdapter } from '../adapter-tensors';
import type { ParameterInfo } from '../tuner';
import { slotsCount } from './parameter-slots';

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

function listed(names: readonly string[]): string {
  return names.slice(0, 5).join(', ') + (names.length > 5 ? ', ...' : '');
}
