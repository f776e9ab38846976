import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type * as Tfjs from '@tensorflow/tfjs-core';
import { errorMessage, invariant, TunefleetError } from '@tunefleet/foundation';
import type { Backend, BinaryName, CompareName, DeviceInfo, Raw, ReduceName, UnaryName } from '../../backend';
import type { DType, HostArray, Shape } from '../../dtype';
import { fillUniform } from './uniform';

type Tf = typeof Tfjs;
/** What the wasm backend shows of its memory. */
interface WasmMemory {
  typedArrayFromHeap(tensor: Tfjs.Tensor): Float32Array | Int32Array;
}
const require = createRequire(import.meta.url);

/** @throws TunefleetError `unavailable` when WebAssembly with SIMD cannot start */
export async function startWasm(): Promise<WasmBackend> {
  try {
    const tf = require('@tensorflow/tfjs-core') as Tf;
    const wasm = require('@tensorflow/tfjs-backend-wasm') as { setWasmPaths(folder: string): void };
    wasm.setWasmPaths(join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'wasm-out/'));
    if (!(await tf.setBackend('wasm'))) throw new Error('TensorFlow.js refused the wasm backend');
    await tf.ready();
    return new WasmBackend(tf);
  } catch (error) {
    throw new TunefleetError('unavailable', `the wasm backend did not start: ${errorMessage(error)}. Run "npm install" and use Node 20 or later`, {
      reason: 'engine_missing',
      retry: 'never',
      cause: error,
    });
  }
}

/** Portable TensorFlow.js ops in WebAssembly: f32, one thread, no native code to build. The fallback, and the slow reference in tests. */
export class WasmBackend implements Backend {
  readonly info: DeviceInfo;
  readonly untransposedWeights = 'all';
  readonly fused = null;
  private readonly tensors = new Map<number, Tfjs.Tensor>();
  private nextId = 0;

  constructor(private readonly tf: Tf) {
    this.info = { backend: 'wasm', version: tf.version_core, deviceName: 'WebAssembly', gpu: false, bf16: false, threads: 1 };
  }

  upload(data: HostArray, shape: Shape, dtype: DType): Raw {
    const raw = this.keep(() => this.tf.tensor(data as Float32Array | Int32Array | Uint8Array, [...shape], tfjsDtype(dtype)));
    return { ...raw, dtype };
  }

  read(x: Raw): HostArray {
    return this.get(x).dataSync() as HostArray;
  }

  free(x: Raw): void {
    this.get(x).dispose();
    this.tensors.delete(x.id);
  }

  cast(x: Raw, dtype: DType): Raw {
    return this.keep(() => this.tf.cast(this.get(x), tfjsDtype(dtype)));
  }

  reshape(x: Raw, shape: Shape): Raw {
    return this.keep(() => this.tf.reshape(this.get(x), [...shape]));
  }

  transpose(x: Raw, perm: readonly number[]): Raw {
    return this.keep(() => this.tf.transpose(this.get(x), [...perm]));
  }

  slice(x: Raw, begin: readonly number[], size: readonly number[]): Raw {
    return this.keep(() => this.tf.slice(this.get(x), [...begin], [...size]));
  }

  concat(xs: readonly Raw[], axis: number): Raw {
    return this.keep(() => this.tf.concat(xs.map((x) => this.get(x)), axis));
  }

  split(x: Raw, sizes: readonly number[], axis: number): Raw[] {
    return this.tf.tidy(() => this.tf.split(this.get(x), [...sizes], axis).map((part) => this.tf.keep(part))).map((part) => this.store(part));
  }

  tile(x: Raw, reps: readonly number[]): Raw {
    return this.keep(() => this.tf.tile(this.get(x), [...reps]));
  }

  unary(name: UnaryName, x: Raw): Raw {
    return this.keep(() => this.tf[name](this.get(x)));
  }

  binary(name: BinaryName, a: Raw, b: Raw): Raw {
    return this.keep(() => this.tf[name](this.get(a), this.get(b)));
  }

  compare(name: CompareName, a: Raw, b: Raw): Raw {
    return this.keep(() => this.tf[name === 'greaterEqual' ? 'greaterEqual' : name](this.get(a), this.get(b)));
  }

  select(condition: Raw, a: Raw, b: Raw): Raw {
    return this.keep(() => this.tf.where(this.get(condition), this.get(a), this.get(b)));
  }

  reduce(name: ReduceName, x: Raw, axes: readonly number[], keepDims: boolean): Raw {
    return this.keep(() => this.tf[name](this.get(x), [...axes], keepDims));
  }

  argMax(x: Raw, axis: number): Raw {
    return this.keep(() => this.tf.argMax(this.get(x), axis));
  }

  softmax(x: Raw): Raw {
    return this.keep(() => this.tf.softmax(this.get(x)));
  }

  addAll(xs: readonly Raw[]): Raw {
    return this.keep(() => this.tf.addN(xs.map((x) => this.get(x))));
  }

  /** A transposed factor is transposed first: the kernel's own transposed form runs at less than a tenth of the speed. */
  matMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    return this.batchMatMul(a, b, transposeA, transposeB);
  }

  batchMatMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    return this.keep(() => {
      const left = transposeA ? this.swapLastAxes(this.get(a)) : this.get(a);
      const right = transposeB ? this.swapLastAxes(this.get(b)) : this.get(b);
      return this.tf.matMul(left, right);
    });
  }

  gather(table: Raw, indices: Raw): Raw {
    return this.keep(() => this.tf.gather(this.get(table), this.get(indices)));
  }

  writeRows(table: Raw, rows: Raw, values: Raw): void {
    const heap = (raw: Raw) => (this.tf.backend() as unknown as WasmMemory).typedArrayFromHeap(this.get(raw));
    const [target, indices, source] = [heap(table), heap(rows), heap(values)];
    const width = source.length / indices.length;
    indices.forEach((row, index) => target.set(source.subarray(index * width, (index + 1) * width), row * width));
  }

  topK(x: Raw, count: number): readonly [Raw, Raw] {
    const { values, indices } = this.tf.tidy(() => {
      const found = this.tf.topk(this.get(x), count);
      return { values: this.tf.keep(found.values), indices: this.tf.keep(found.indices) };
    });
    return [this.store(values), this.store(indices)];
  }

  silu(x: Raw): Raw {
    return this.keep(() => this.tf.mul(this.get(x), this.tf.sigmoid(this.get(x))));
  }

  softmaxCrossEntropy(logits: Raw, labels: Raw): readonly [Raw, Raw] {
    const [loss, gradient] = this.tf.tidy(() => {
      const x = this.get(logits);
      const oneHot = this.tf.cast(this.tf.oneHot(this.get(labels) as Tfjs.Tensor1D, x.shape[1] ?? 0), 'float32');
      const shifted = this.tf.sub(x, this.tf.max(x, 1, true));
      const exponentials = this.tf.exp(shifted);
      const sums = this.tf.sum(exponentials, 1, true);
      const picked = this.tf.sum(this.tf.mul(shifted, oneHot), 1);
      const rowLoss = this.tf.sub(this.tf.log(this.tf.reshape(sums, [-1])), picked);
      return [this.tf.keep(rowLoss), this.tf.keep(this.tf.sub(this.tf.div(exponentials, sums), oneHot))];
    });
    invariant(loss && gradient, 'cross entropy gives two outputs');
    return [this.store(loss), this.store(gradient)];
  }

  randomUniform(shape: Shape, key: readonly [number, number]): Raw {
    return this.upload(fillUniform(shape, key), shape, 'f32');
  }

  private swapLastAxes(x: Tfjs.Tensor): Tfjs.Tensor {
    const perm = x.shape.map((_, axis) => axis);
    const last = perm.length - 1;
    perm[last] = last - 1;
    perm[last - 1] = last;
    return this.tf.transpose(x, perm);
  }

  private get(x: Raw): Tfjs.Tensor {
    const tensor = this.tensors.get(x.id);
    invariant(tensor, `wasm tensor ${x.id} is gone`);
    return tensor;
  }

  private keep(make: () => Tfjs.Tensor): Raw {
    return this.store(this.tf.tidy(() => this.tf.keep(make())));
  }

  private store(tensor: Tfjs.Tensor): Raw {
    const id = this.nextId++;
    this.tensors.set(id, tensor);
    return { id, shape: tensor.shape, dtype: dtypeOf(tensor.dtype) };
  }
}

function tfjsDtype(dtype: DType): 'float32' | 'int32' | 'bool' {
  switch (dtype) {
    case 'f32':
      return 'float32';
    case 'i32':
      return 'int32';
    // TensorFlow.js has no bytes, but keeps those of a bool as they are, also when it casts them.
    case 'bool':
    case 'u8':
      return 'bool';
    case 'bf16':
      throw new TunefleetError('unavailable', `the wasm backend has no ${dtype} tensors. Use f32, or build the native engine with "npm run setup"`, { retry: 'never' });
  }
}

function dtypeOf(name: string): DType {
  if (name === 'float32') return 'f32';
  if (name === 'int32') return 'i32';
  if (name === 'bool') return 'bool';
  throw new TunefleetError('invariant', `TensorFlow.js returned dtype ${name}`);
}
