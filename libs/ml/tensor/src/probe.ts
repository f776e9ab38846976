import type { Device } from './device';
import type { FloatDType } from './dtype';
import type { Tensor } from './tensor';

export interface DeviceProbe {
  /** Billions of floating point operations per second of a 1024 x 576 x 1536 matmul. */
  readonly gflopsF32: number;
  /** null where bf16 does not exist. */
  readonly gflopsBf16: number | null;
  /** Faster of the two: bf16 only when clearly faster, as it is the less exact one. */
  readonly recommended: FloatDType;
}

const SHAPE = { rows: 1024, inner: 576, columns: 1536 } as const;
/** Alternating, best of each: another process that takes the processor for a moment must not decide this. */
const ROUNDS = 6;
/**
 * Where there are instructions for bf16 its products are two to four times as fast; everything around them is not, and is slower in bf16 where there are none.
 * A smaller gain is noise or would be lost again.
 */
const CLEAR_GAIN = 1.5;

/** Times matmuls of a typical layer, about 0.4 s on two cores. */
export function probeDevice(device: Device): DeviceProbe {
  const dtypes: readonly FloatDType[] = device.info.bf16 ? ['f32', 'bf16'] : ['f32'];
  return device.scope(() => {
    const products = dtypes.map((dtype) => layerProduct(device, dtype));
    const best = products.map(() => Infinity);
    for (let round = 0; round <= ROUNDS; round++) {
      products.forEach((product, index) => {
        const seconds = timed(product);
        // The first round makes kernels and maps memory.
        if (round > 0) best[index] = Math.min(best[index] as number, seconds);
      });
    }
    const [gflopsF32 = 0, gflopsBf16 = null] = best.map((seconds) => (2 * SHAPE.rows * SHAPE.inner * SHAPE.columns) / seconds / 1e9);
    return { gflopsF32, gflopsBf16, recommended: gflopsBf16 !== null && gflopsBf16 > CLEAR_GAIN * gflopsF32 ? 'bf16' : 'f32' };
  });
}

function layerProduct(device: Device, dtype: FloatDType): () => void {
  const { rows, inner, columns } = SHAPE;
  const x = random(device, [rows, inner], dtype);
  const w = random(device, [columns, inner], dtype);
  return () =>
    device.scope(() => {
      const y = device.primitives.matMul(x, w, false, true);
      // Reading one element waits for devices that run asynchronously.
      device.readFloats(device.primitives.slice(y, [0, 0], [1, 1]));
    });
}

function timed(run: () => void): number {
  const started = performance.now();
  run();
  return (performance.now() - started) / 1000;
}

function random(device: Device, shape: readonly number[], dtype: FloatDType): Tensor {
  return device.primitives.cast(device.primitives.randomUniform(shape, [1, 2]), dtype);
}
