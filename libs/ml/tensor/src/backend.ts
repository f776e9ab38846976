import type { DType, HostArray, Shape } from './dtype';
import type { FusedOps } from './fused-ops';

/** A buffer as a backend names it. The number means nothing outside the backend that gave it. */
export interface Raw {
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
}

export type UnaryName = 'neg' | 'exp' | 'log' | 'sqrt' | 'rsqrt' | 'sigmoid' | 'tanh' | 'erf' | 'square' | 'abs';
export type BinaryName = 'add' | 'sub' | 'mul' | 'div' | 'maximum';
export type CompareName = 'equal' | 'less' | 'greaterEqual';
export type ReduceName = 'sum' | 'mean' | 'max';

export interface DeviceInfo {
  readonly backend: 'tensorflow' | 'wasm';
  /** Version of the native library, or of TensorFlow.js for wasm. */
  readonly version: string;
  readonly deviceName: string;
  readonly gpu: boolean;
  /** Whether bf16 tensors can be used at all; whether they pay is measured by `Device.probe`. */
  readonly bf16: boolean;
  /** Threads of one op. */
  readonly threads: number;
}

/**
 * What a device must compute: portable, eager, without gradients. Every result is a new buffer owned by the caller;
 * inputs are never changed. Binary ops broadcast as NumPy does and want equal dtypes. `bool` only comes from comparisons.
 */
export interface Backend {
  readonly info: DeviceInfo;
  /**
   * Which frozen `[out, in]` weights should be kept as `[in, out]`: all, also at the price of a second copy, because a transposed right factor is slow here;
   * those of maps with more outputs than inputs, which a single row is multiplied by in half the time; or none.
   */
  readonly untransposedWeights: 'all' | 'wide' | 'none';
  /** Null where every op is composed of the ones below. */
  readonly fused: FusedOps | null;

  /** May keep using `data`'s memory: the caller gives it up. */
  upload(data: HostArray, shape: Shape, dtype: DType): Raw;
  read(x: Raw): HostArray;
  free(x: Raw): void;

  cast(x: Raw, dtype: DType): Raw;
  /** Shares the memory of `x`; both must be freed. */
  reshape(x: Raw, shape: Shape): Raw;
  transpose(x: Raw, perm: readonly number[]): Raw;
  slice(x: Raw, begin: readonly number[], size: readonly number[]): Raw;
  concat(xs: readonly Raw[], axis: number): Raw;
  split(x: Raw, sizes: readonly number[], axis: number): Raw[];
  /** Repeats each axis `reps[i]` times. */
  tile(x: Raw, reps: readonly number[]): Raw;

  unary(name: UnaryName, x: Raw): Raw;
  binary(name: BinaryName, a: Raw, b: Raw): Raw;
  compare(name: CompareName, a: Raw, b: Raw): Raw;
  /** Element of `a` where `condition`, else of `b`; broadcasts. */
  select(condition: Raw, a: Raw, b: Raw): Raw;
  reduce(name: ReduceName, x: Raw, axes: readonly number[], keepDims: boolean): Raw;
  argMax(x: Raw, axis: number): Raw;
  softmax(x: Raw): Raw;
  /** Sum of equally shaped buffers, in order. */
  addAll(xs: readonly Raw[]): Raw;

  /** Rank 2. */
  matMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw;
  /** Rank 3 or 4, leading axes equal or 1. */
  batchMatMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw;
  /** Rows of `table` along axis 0. */
  gather(table: Raw, indices: Raw): Raw;
  /**
   * Overwrites rows of `table` along axis 0 where they are, the one op that changes an input: for caches, whose holder nobody shares the memory with.
   * @param rows [n] i32, distinct   @param values [n, ..]
   */
  writeRows(table: Raw, rows: Raw, values: Raw): void;
  /** The `count` largest of every row, largest first, the lower index first on ties. @param x [N, V] f32   @returns [N, count] f32 and i32 */
  topK(x: Raw, count: number): readonly [values: Raw, indices: Raw];
  /** x * sigmoid(x). */
  silu(x: Raw): Raw;
  /** `-log softmax(logits)[label]` per row, and its gradient `softmax - onehot`. Labels must be in range. f32. */
  softmaxCrossEntropy(logits: Raw, labels: Raw): readonly [loss: Raw, gradient: Raw];
  /** Uniform f32 in [0, 1), a pure function of the two 32-bit key words and the element's index. */
  randomUniform(shape: Shape, key: readonly [number, number]): Raw;
}
