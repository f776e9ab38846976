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
const REPEATS = 3;
/** bf16 halves weight memory too, so on a tie it may win where memory is short; that is the caller's choice. */
const CLEAR_GAIN = 1.25;

/** Times matmuls of a typical layer, about 0.3 s on two cores. */
export function probeDevice(device: Device): DeviceProbe {
  const gflopsF32 = timeMatMul(device, 'f32');
  const gflopsBf16 = device.info.bf16 ? timeMatMul(device, 'bf16') : null;
  return { gflopsF32, gflopsBf16, recommended: gflopsBf16 !== null && gflopsBf16 > CLEAR_GAIN * gflopsF32 ? 'bf16' : 'f32' };
}

function timeMatMul(device: Device, dtype: FloatDType): number {
  const { rows, inner, columns } = SHAPE;
  const operations = 2 * rows * inner * columns;
  return device.scope(() => {
    const x = random(device, [rows, inner], dtype);
    const w = random(device, [columns, inner], dtype);
    let best = Infinity;
    for (let i = 0; i <= REPEATS; i++) {
      const started = performance.now();
      const y = device.primitives.matMul(x, w, false, true);
      // Reading one element waits for devices that run asynchronously.
      device.readFloats(device.primitives.slice(y, [0, 0], [1, 1]));
      if (i > 0) best = Math.min(best, performance.now() - started);
    }
    return operations / best / 1e6;
  });
}

function random(device: Device, shape: readonly number[], dtype: FloatDType): Tensor {
  return device.primitives.cast(device.primitives.randomUniform(shape, [1, 2]), dtype);
}
