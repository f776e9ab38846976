import { isTunefleetError, TunefleetError } from '@tunefleet/foundation';
import { loadBinding } from './backends/tensorflow/binding';
import { TensorflowBackend } from './backends/tensorflow/tensorflow-backend';
import { startWasm } from './backends/wasm/wasm-backend';
import { Device } from './device';

export interface OpenDeviceOptions {
  /** `auto`: tensorflow, or wasm when the native addon is missing or does not load. */
  readonly backend: 'auto' | 'tensorflow' | 'wasm';
  /** Threads of one op; default all cores. Read once per process. */
  readonly threads?: number;
  /** Fail rather than run on the processor. */
  readonly requireGpu?: boolean;
  /** Told why `auto` fell back to wasm. */
  readonly onFallback?: (error: Error) => void;
}

/**
 * Opens the device of this process.
 * @throws TunefleetError `unavailable`: reason `engine_missing` (says to run set-up) or `gpu_not_used`
 */
export async function openDevice(options: OpenDeviceOptions): Promise<Device> {
  switch (options.backend) {
    case 'tensorflow':
      return openTensorflow(options);
    case 'wasm':
      return new Device(await startWasm());
    case 'auto':
      try {
        return openTensorflow(options);
      } catch (error) {
        if (!isTunefleetError(error) || error.reason !== 'engine_missing') throw error;
        options.onFallback?.(error);
        return new Device(await startWasm());
      }
  }
}

function openTensorflow(options: OpenDeviceOptions): Device {
  const backend = new TensorflowBackend(loadBinding(options.threads), options.threads);
  if (options.requireGpu && !backend.info.gpu) {
    throw new TunefleetError(
      'unavailable',
      `a GPU was asked for but TensorFlow ${backend.info.version} uses the processor. Check "nvidia-smi", CUDA_VISIBLE_DEVICES, and that "npm run setup" chose the CUDA flavour`,
      { reason: 'gpu_not_used', retry: 'never' },
    );
  }
  return new Device(backend);
}
