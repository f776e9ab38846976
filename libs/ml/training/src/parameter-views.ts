import type { Device, Tensor } from '@tunefleet/ml-tensor';
import type { ParameterInfo } from '@tunefleet/ml-tuners';

/** The flat parameter vector on the device, as one tensor per parameter. */
export class ParameterViews implements Disposable {
  readonly tensors: readonly Tensor[];

  /** @param values [P], copied */
  constructor(device: Device, parameters: readonly ParameterInfo[], values: Float32Array) {
    this.tensors = device.scope(() => {
      const flat = device.tensor(values.slice(), [values.length], 'f32');
      const parts = device.primitives.split(flat, parameters.map(sizeOf), 0);
      return parameters.map(({ shape }, index) => device.primitives.reshape(parts[index] as Tensor, shape));
    });
  }

  /** @param gradients one per parameter, null where zero    @returns [P] on the host */
  readFlat(device: Device, gradients: readonly (Tensor | null)[]): Float32Array {
    const p = device.primitives;
    return device.scope(() => {
      const parts = this.tensors.map((view, index) => {
        const gradient = gradients[index];
        const size = view.shape.reduce((product, n) => product * n, 1);
        return gradient ? p.reshape(p.cast(gradient, 'f32'), [size]) : p.zeros([size], 'f32');
      });
      return device.readFloats(parts.length === 1 ? (parts[0] as Tensor) : p.concat(parts, 0));
    });
  }

  [Symbol.dispose](): void {
    for (const tensor of this.tensors) tensor.dispose();
  }
}

function sizeOf({ shape }: ParameterInfo): number {
  return shape.reduce((product, n) => product * n, 1);
}
