import { isTunefleetError, TunefleetError } from '@tunefleet/foundation';
import type { Backend } from './backend';
import { loadBinding } from './backends/tensorflow/binding';
import { TensorflowBackend } from './backends/tensorflow/tensorflow-backend';
import { startWasm } from './backends/wasm/wasm-backend';
import { Device } from './device';
import { profiled, type OpProfile } from './profile';

export interface OpenDeviceOptions {
  /** `auto`: tensorflow, or wasm when the native addon is missing or does not load. */
  readonly backend: 'auto' | 'tensorflow' | 'wasm';
  /** Threads of one op; default all cores. Read once per process. */
  readonly threads?: number;
  /** Fail rather than run on the processor. */
  readonly requireGpu?: boolean;
  /** Told why `auto` fell back to wasm. */
  readonly onFallback?: (error: Error) => void;
  /** Told what every op takes. */
  readonly profile?: OpProfile;
  /** False: compose every op of TensorFlow's, to compare with. */
  readonly fused?: boolean;
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
      return deviceOn(await startWasm(), options);
    case 'auto':
      try {
        return openTensorflow(options);
      } catch (error) {
        if (!isTunefleetError(error) || error.reason !== 'engine_missing') throw error;
        options.onFallback?.(error);
        return deviceOn(await startWasm(), options);
      }
  }
}

function openTensorflow(options: OpenDeviceOptions): Device {
  const backend = new TensorflowBackend(loadBinding(options.threads), options.threads, { fused: options.fused ?? true });
  if (options.requireGpu && !backend.info.gpu) {
    throw new TunefleetError(
      'unavailable',
      `a GPU was asked for but TensorFlow ${backend.info.version} uses the processor. Check "nvidia-smi", CUDA_VISIBLE_DEVICES, and that "npm run setup" chose the CUDA flavour`,
      { reason: 'gpu_not_used', retry: 'never' },
    );
  }
  return deviceOn(backend, options);
}

function deviceOn(backend: Backend, { profile }: OpenDeviceOptions): Device {
  return new Device(profile ? profiled(backend, profile) : backend);
}
