import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import type { HostArray } from '../../dtype';

/** The part of TensorFlow.js' native addon that we call. Ids name tensor handles inside the addon. */
export interface Binding {
  readonly TF_Version: string;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_STRING: number;
  isUsingGpuDevice(): boolean;
  createTensor(shape: readonly number[], dtype: number, values: HostArray): number;
  deleteTensor(id: number): void;
  tensorDataSync(id: number): HostArray;
  executeOp(name: string, attributes: readonly OpAttribute[], inputs: readonly number[], outputs: number): OpOutput[];
}

export interface OpAttribute {
  readonly name: string;
  readonly type: number;
  readonly value: number | boolean | string;
}

export interface OpOutput {
  readonly id: number;
  readonly shape: number[];
  readonly dtype: number;
}

/** Numbers of TensorFlow's `DataType`; the addon names only some of them. */
export const TF = { f32: 1, i32: 3, u8: 4, bool: 10, bf16: 14, i64: 9 } as const;

const require = createRequire(import.meta.url);

/**
 * Loads the addon that set-up compiled into `@tensorflow/tfjs-node-gpu`. The addon is loaded by itself, without the JavaScript around it,
 * which saves a second of start-up and some 100 MB. It is one per process: TensorFlow reads its environment at first load only.
 * @throws TunefleetError `unavailable`, reason `engine_missing`
 */
export function loadBinding(threads: number | undefined): Binding {
  const path = addonPath();
  setDefault('TF_ENABLE_ONEDNN_OPTS', '1');
  setDefault('TF_CPP_MIN_LOG_LEVEL', '3');
  setDefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true');
  if (threads !== undefined) {
    process.env['TF_NUM_INTRAOP_THREADS'] = String(threads);
    process.env['TF_NUM_INTEROP_THREADS'] = '1';
  }
  try {
    return require(path) as Binding;
  } catch (error) {
    throw new TunefleetError('unavailable', `the TensorFlow addon could not be loaded: ${errorMessage(error)}. Run "npm run setup" to build it again, or choose the wasm backend`, {
      reason: 'engine_missing',
      retry: 'never',
      cause: error,
      details: { path },
    });
  }
}

function addonPath(): string {
  let folder: string;
  try {
    folder = dirname(require.resolve('@tensorflow/tfjs-node-gpu/package.json'));
  } catch (error) {
    throw new TunefleetError('unavailable', 'the package @tensorflow/tfjs-node-gpu is not installed. Run "npm install", then "npm run setup"', {
      reason: 'engine_missing',
      retry: 'never',
      cause: error,
    });
  }
  const path = join(folder, 'lib', 'napi-v8', 'tfjs_binding.node');
  if (!existsSync(path)) {
    throw new TunefleetError('unavailable', 'the native engine is not built yet. Run "npm run setup", or choose the wasm backend', {
      reason: 'engine_missing',
      retry: 'never',
      details: { path },
    });
  }
  return path;
}

function setDefault(name: string, value: string): void {
  process.env[name] ??= value;
}
