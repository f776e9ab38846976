import type { Device, Tensor } from '@tunefleet/ml-tensor';
import { JOINED_BYTES_MAX, type ParameterInfo } from '@tunefleet/ml-tuners';

/** The flat parameter vector on the device, as one tensor per parameter; several vectors of the same parameters as lanes, [K, ...shape] each. */
export class ParameterViews implements Disposable {
  readonly tensors: readonly Tensor[];
  /** Null: one vector, without an axis of lanes. */
  readonly #lanes: number | null;

  /** @param values [P], or [P] of every lane; copied. null: one vector of zeros, to count bytes with */
  constructor(device: Device, parameters: readonly ParameterInfo[], values: Float32Array | readonly Float32Array[] | null) {
    const p = device.primitives;
    this.#lanes = isLanes(values) ? values.length : null;
    const lead = this.#lanes === null ? [] : [this.#lanes];
    this.tensors = device.scope(() => {
      if (values === null) return parameters.map(({ shape }) => p.zeros(shape, 'f32'));
      if (!isLanes(values) && values.byteLength > JOINED_BYTES_MAX) return separate(device, parameters, values);
      const host = isLanes(values) ? stacked(values) : values.slice();
      const flat = device.tensor(host, [...lead, host.length / (this.#lanes ?? 1)], 'f32');
      const parts = p.split(flat, parameters.map(sizeOf), lead.length);
      return parameters.map(({ shape }, index) => p.reshape(parts[index] as Tensor, [...lead, ...shape]));
    });
  }

  /** @param gradients one per parameter, null where zero    @returns [P] on the host, lane after lane */
  readFlat(device: Device, gradients: readonly (Tensor | null)[]): Float32Array {
    const p = device.primitives;
    const lead = this.#lanes === null ? [] : [this.#lanes];
    return device.scope(() => {
      const parts = this.tensors.map((view, index) => {
        const gradient = gradients[index];
        const size = view.shape.reduce((product, n) => product * n, 1) / (this.#lanes ?? 1);
        return gradient ? p.reshape(p.cast(gradient, 'f32'), [...lead, size]) : p.zeros([...lead, size], 'f32');
      });
      if (this.#lanes === null && bytesOf(parts) > JOINED_BYTES_MAX) return joined(device, parts);
      return device.readFloats(parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, lead.length));
    });
  }

  [Symbol.dispose](): void {
    for (const tensor of this.tensors) tensor.dispose();
  }
}

function isLanes(values: Float32Array | readonly Float32Array[] | null): values is readonly Float32Array[] {
  return Array.isArray(values);
}

function separate(device: Device, parameters: readonly ParameterInfo[], values: Float32Array): Tensor[] {
  let at = 0;
  return parameters.map((parameter) => device.tensor(values.slice(at, (at += sizeOf(parameter))), parameter.shape, 'f32'));
}

function joined(device: Device, parts: readonly Tensor[]): Float32Array {
  const all = new Float32Array(bytesOf(parts) / 4);
  let at = 0;
  for (const part of parts) {
    all.set(device.readFloats(part), at);
    at += part.dim(0);
  }
  return all;
}

/** Of vectors in f32. */
function bytesOf(vectors: readonly Tensor[]): number {
  return vectors.reduce((sum, vector) => sum + 4 * vector.dim(0), 0);
}

function stacked(vectors: readonly Float32Array[]): Float32Array {
  const size = vectors[0]?.length ?? 0;
  const all = new Float32Array(size * vectors.length);
  vectors.forEach((vector, lane) => all.set(vector, lane * size));
  return all;
}

function sizeOf({ shape }: ParameterInfo): number {
  return shape.reduce((product, n) => product * n, 1);
}
