import { TunefleetError } from '@tunefleet/foundation';
import type { LoadedAdapter, Tuner } from '@tunefleet/ml-tuners';

/**
 * The values of an adapter in the order of the tuner that goes on from it.
 * @throws TunefleetError `incompatible_artifact` naming the first parameter that the two do not share in shape
 */
export function startValues(tuner: Tuner, adapter: Pick<LoadedAdapter, 'tuner' | 'values'>): Float32Array {
  const given = new Map<string, { readonly shape: readonly number[]; readonly part: Float32Array }>();
  let offset = 0;
  for (const { name, shape } of adapter.tuner.parameters) {
    const size = shape.reduce((product, n) => product * n, 1);
    given.set(name, { shape, part: adapter.values.subarray(offset, offset + size) });
    offset += size;
  }
  const values = new Float32Array(tuner.parameterCount);
  offset = 0;
  for (const { name, shape } of tuner.parameters) {
    const found = given.get(name);
    given.delete(name);
    if (found === undefined) throw refuse(`the tuner trains "${name}", which the adapter does not have`);
    if (found.shape.join() !== shape.join()) throw refuse(`"${name}" is [${found.shape.join(', ')}] in the adapter and [${shape.join(', ')}] in the tuner`);
    values.set(found.part, offset);
    offset += found.part.length;
  }
  const [extra] = given.keys();
  if (extra !== undefined) throw refuse(`the adapter has "${extra}", which the tuner does not train`);
  return values;
}

function refuse(why: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the run cannot go on from this adapter: ${why}. Use the settings it was made with, as "tunefleet adapters get" and its adapter_config.json show them`, { reason: 'bad_start_adapter', param: 'tuner' });
}
