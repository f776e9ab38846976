import { TunefleetError } from '@tunefleet/foundation';
import { bf16ArrayToF32, f16ToF32, type AdapterTensor } from '@tunefleet/ml-formats';

/** A tensor's elements as f32. @throws TunefleetError `incompatible_artifact` for other dtypes than F32, BF16 and F16, and for NaN and infinity */
export function floatsOf(tensor: AdapterTensor): Float32Array {
  const values = decoded(tensor);
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw unusableAdapter(`tensor "${tensor.name}" holds numbers that are not finite (${values[bad]} at element ${bad}); it is damaged, or its training failed`);
  return values;
}

function decoded({ name, dtype, data }: AdapterTensor): Float32Array {
  const bytes = data.slice().buffer;
  switch (dtype) {
    case 'F32':
      return new Float32Array(bytes);
    case 'BF16':
      return bf16ArrayToF32(new Uint16Array(bytes));
    case 'F16':
      return Float32Array.from(new Uint16Array(bytes), f16ToF32);
    default:
      throw unusableAdapter(`tensor "${name}" is stored as ${dtype}; adapters must be F32, BF16 or F16`);
  }
}

export function unusableAdapter(message: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the adapter cannot be used: ${message}`, { reason: 'bad_adapter' });
}

/** One of a tuner's parameters as it lies in an adapter's file. @param values all of the tuner's, copied from `offset` on */
export function tensorOf(name: string, shape: readonly number[], values: Float32Array, offset: number): AdapterTensor {
  const size = shape.reduce((product, length) => product * length, 1);
  return { name, dtype: 'F32', shape, data: new Uint8Array(values.slice(offset, offset + size).buffer) };
}
