import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { TunefleetError } from '@tunefleet/foundation';

const BACKENDS = ['auto', 'tensorflow', 'wasm'] as const;

/**
 * Opens the device the environment asks for: `TUNEFLEET_BACKEND` (auto, tensorflow, wasm), `TUNEFLEET_THREADS` (default: all cores),
 * `TUNEFLEET_REQUIRE_GPU=1`.
 * @param onFallback told why wasm had to be taken; default: a line on stderr
 * @throws TunefleetError `invalid_input` naming the variable; what `openDevice` throws
 */
export function openEngineDevice(environment: NodeJS.ProcessEnv = process.env, onFallback = warn): Promise<Device> {
  const backend = BACKENDS.find((name) => name === (environment['TUNEFLEET_BACKEND'] || 'auto'));
  if (backend === undefined) throw new TunefleetError('invalid_input', `TUNEFLEET_BACKEND is "${environment['TUNEFLEET_BACKEND']}"; it must be ${BACKENDS.join(', ')}`);
  const threads = threadsFrom(environment['TUNEFLEET_THREADS']);
  return openDevice({
    backend,
    ...(threads === undefined ? {} : { threads }),
    requireGpu: environment['TUNEFLEET_REQUIRE_GPU'] === '1',
    onFallback,
  });
}

function warn(error: Error): void {
  process.stderr.write(`engine: ${error.message}. Going on with the slow wasm backend.\n`);
}

function threadsFrom(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  const threads = Number(text);
  if (Number.isInteger(threads) && threads >= 1 && threads <= 1024) return threads;
  throw new TunefleetError('invalid_input', `TUNEFLEET_THREADS is "${text}"; it must be a whole number from 1 to 1024`);
}
