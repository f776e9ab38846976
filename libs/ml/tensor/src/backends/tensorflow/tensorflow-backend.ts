import { availableParallelism } from 'node:os';
import { errorMessage, invariant, TunefleetError } from '@tunefleet/foundation';
import type { Backend, BinaryName, CompareName, DeviceInfo, Raw, ReduceName, UnaryName } from '../../backend';
import type { DType, HostArray, Shape } from '../../dtype';
import { TF, type Binding, type OpAttribute, type OpOutput } from './binding';
import { ConstantCache } from './constant-cache';
import { hardwareName } from './device-name';
import { FusedKernels } from './fused-kernels';

const DTYPE_OF = new Map<number, DType>([
  [TF.f32, 'f32'],
  [TF.bf16, 'bf16'],
  [TF.i32, 'i32'],
  [TF.u8, 'u8'],
  [TF.bool, 'bool'],
]);

const UNARY: Readonly<Record<UnaryName, string>> = {
  neg: 'Neg',
  exp: 'Exp',
  log: 'Log',
  sqrt: 'Sqrt',
  rsqrt: 'Rsqrt',
  sigmoid: 'Sigmoid',
  tanh: 'Tanh',
  erf: 'Erf',
  square: 'Square',
  abs: 'Abs',
};
const BINARY: Readonly<Record<BinaryName, string>> = { add: 'AddV2', sub: 'Sub', mul: 'Mul', div: 'RealDiv', maximum: 'Maximum' };
const COMPARE: Readonly<Record<CompareName, string>> = { equal: 'Equal', less: 'Less', greaterEqual: 'GreaterEqual' };
const REDUCE: Readonly<Record<ReduceName, string>> = { sum: 'Sum', mean: 'Mean', max: 'Max' };

/** Runs raw TensorFlow ops through the addon, which knows dtypes that TensorFlow.js does not. */
export class TensorflowBackend implements Backend {
  readonly info: DeviceInfo;
  readonly untransposedWeights: 'wide' | 'none';
  readonly fused: FusedKernels | null;
  private readonly constants: ConstantCache;

  constructor(
    private readonly binding: Binding,
    threads: number | undefined,
    { fused }: { readonly fused: boolean },
  ) {
    const gpu = binding.isUsingGpuDevice();
    this.info = {
      backend: 'tensorflow',
      version: binding.TF_Version,
      deviceName: hardwareName(gpu),
      gpu,
      bf16: true,
      threads: threads ?? availableParallelism(),
    };
    this.constants = new ConstantCache(binding);
    this.fused = fused && !gpu ? this.openKernels() : null;
    this.untransposedWeights = gpu || this.fused ? 'none' : 'wide';
  }

  upload(data: HostArray, shape: Shape, dtype: DType): Raw {
    if (dtype !== 'bf16') return { id: this.create(shape, TF[dtype], data), shape, dtype };
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const packed = this.create([...shape, 2], TF.u8, bytes);
    try {
      return this.run('Bitcast', [this.type('T', TF.u8), this.type('type', TF.bf16)], [packed]);
    } finally {
      this.binding.deleteTensor(packed);
    }
  }

  read(x: Raw): HostArray {
    switch (x.dtype) {
      case 'f32':
      case 'i32':
      case 'bool':
        return this.binding.tensorDataSync(x.id);
      case 'u8': {
        const words = this.readVia(x, 'i32');
        return Uint8Array.from(words);
      }
      case 'bf16': {
        const floats = this.readVia(x, 'f32');
        const words = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
        return Uint16Array.from(words, (word) => word >>> 16);
      }
    }
  }

  free(x: Raw): void {
    this.binding.deleteTensor(x.id);
  }

  cast(x: Raw, dtype: DType): Raw {
    return this.run('Cast', [this.type('SrcT', TF[x.dtype]), this.type('DstT', TF[dtype]), this.flag('Truncate', false)], [x.id]);
  }

  reshape(x: Raw, shape: Shape): Raw {
    return this.run('Reshape', [this.type('T', TF[x.dtype]), this.type('Tshape', TF.i32)], [x.id, this.constants.vector(shape)]);
  }

  transpose(x: Raw, perm: readonly number[]): Raw {
    return this.run('Transpose', [this.type('T', TF[x.dtype]), this.type('Tperm', TF.i32)], [x.id, this.constants.vector(perm)]);
  }

  slice(x: Raw, begin: readonly number[], size: readonly number[]): Raw {
    const attributes = [this.type('T', TF[x.dtype]), this.type('Index', TF.i32)];
    return this.run('Slice', attributes, [x.id, this.constants.vector(begin), this.constants.vector(size)]);
  }

  concat(xs: readonly Raw[], axis: number): Raw {
    const attributes = [this.type('T', TF[first(xs).dtype]), this.int('N', xs.length), this.type('Tidx', TF.i32)];
    return this.run('ConcatV2', attributes, [...xs.map((x) => x.id), this.constants.scalar(axis)]);
  }

  split(x: Raw, sizes: readonly number[], axis: number): Raw[] {
    const attributes = [this.type('T', TF[x.dtype]), this.type('Tlen', TF.i32), this.int('num_split', sizes.length)];
    return this.runAll('SplitV', attributes, [x.id, this.constants.vector(sizes), this.constants.scalar(axis)], sizes.length);
  }

  tile(x: Raw, reps: readonly number[]): Raw {
    return this.run('Tile', [this.type('T', TF[x.dtype]), this.type('Tmultiples', TF.i32)], [x.id, this.constants.vector(reps)]);
  }

  unary(name: UnaryName, x: Raw): Raw {
    return this.run(UNARY[name], [this.type('T', TF[x.dtype])], [x.id]);
  }

  binary(name: BinaryName, a: Raw, b: Raw): Raw {
    return this.run(BINARY[name], [this.type('T', TF[a.dtype])], [a.id, b.id]);
  }

  compare(name: CompareName, a: Raw, b: Raw): Raw {
    return this.run(COMPARE[name], [this.type('T', TF[a.dtype])], [a.id, b.id]);
  }

  select(condition: Raw, a: Raw, b: Raw): Raw {
    return this.run('SelectV2', [this.type('T', TF[a.dtype])], [condition.id, a.id, b.id]);
  }

  reduce(name: ReduceName, x: Raw, axes: readonly number[], keepDims: boolean): Raw {
    const attributes = [this.flag('keep_dims', keepDims), this.type('T', TF[x.dtype]), this.type('Tidx', TF.i32)];
    return this.run(REDUCE[name], attributes, [x.id, this.constants.vector(axes)]);
  }

  argMax(x: Raw, axis: number): Raw {
    const attributes = [this.type('T', TF[x.dtype]), this.type('Tidx', TF.i32), this.type('output_type', TF.i32)];
    return this.run('ArgMax', attributes, [x.id, this.constants.scalar(axis)]);
  }

  softmax(x: Raw): Raw {
    return this.run('Softmax', [this.type('T', TF[x.dtype])], [x.id]);
  }

  addAll(xs: readonly Raw[]): Raw {
    return this.run('AddN', [this.type('T', TF[first(xs).dtype]), this.int('N', xs.length)], xs.map((x) => x.id));
  }

  matMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    const attributes = [this.flag('transpose_a', transposeA), this.flag('transpose_b', transposeB), this.type('T', TF[a.dtype])];
    return this.run('MatMul', attributes, [a.id, b.id]);
  }

  batchMatMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    const flags = [this.flag('adj_x', transposeA), this.flag('adj_y', transposeB)];
    // oneDNN takes over the older op, not this one; what it has to prepare costs more than a small product.
    if (multiplications(a.shape, b.shape, transposeB) <= PLAIN_PRODUCT_MAX) {
      return this.run('BatchMatMulV3', [this.type('Ta', TF[a.dtype]), this.type('Tb', TF[b.dtype]), this.type('Tout', TF[a.dtype]), ...flags], [a.id, b.id]);
    }
    return this.run('BatchMatMulV2', [...flags, this.type('T', TF[a.dtype])], [a.id, b.id]);
  }

  gather(table: Raw, indices: Raw): Raw {
    const attributes = [this.type('Tparams', TF[table.dtype]), this.type('Tindices', TF.i32), this.type('Taxis', TF.i32), this.int('batch_dims', 0)];
    return this.run('GatherV2', attributes, [table.id, indices.id, this.constants.scalar(0)]);
  }

  writeRows(table: Raw, rows: Raw, values: Raw): void {
    // Its output is a second handle of the table's memory.
    this.binding.deleteTensor(this.run('InplaceUpdate', [this.type('T', TF[table.dtype])], [table.id, rows.id, values.id]).id);
  }

  topK(x: Raw, count: number): readonly [Raw, Raw] {
    const attributes = [this.flag('sorted', true), this.type('T', TF[x.dtype])];
    const [values, indices] = this.runAll('TopKV2', attributes, [x.id, this.constants.scalar(count)], 2);
    invariant(values && indices, 'top k gives two outputs');
    return [values, indices];
  }

  silu(x: Raw): Raw {
    const gate = this.unary('sigmoid', x);
    try {
      return this.binary('mul', x, gate);
    } finally {
      this.free(gate);
    }
  }

  softmaxCrossEntropy(logits: Raw, labels: Raw): readonly [Raw, Raw] {
    const attributes = [this.type('T', TF[logits.dtype]), this.type('Tlabels', TF.i32)];
    const [loss, gradient] = this.runAll('SparseSoftmaxCrossEntropyWithLogits', attributes, [logits.id, labels.id], 2);
    invariant(loss && gradient, 'cross entropy gives two outputs');
    return [loss, gradient];
  }

  randomUniform(shape: Shape, key: readonly [number, number]): Raw {
    const seed = this.create([2], TF.i32, Int32Array.of(key[0], key[1]));
    try {
      const attributes = [this.type('dtype', TF.f32), this.type('T', TF.i32), this.type('Tseed', TF.i32)];
      return this.run('StatelessRandomUniform', attributes, [this.constants.vector(shape), seed]);
    } finally {
      this.binding.deleteTensor(seed);
    }
  }

  /** Runs one TensorFlow op with one output. For fused kernels of this backend only. */
  run(name: string, attributes: readonly OpAttribute[], inputs: readonly number[]): Raw {
    return this.wrap(first(this.execute(name, attributes, inputs, 1)));
  }

  private openKernels(): FusedKernels | null {
    const probe = this.upload(Float32Array.of(0), [1], 'f32');
    try {
      const runner = {
        run: this.runAll.bind(this),
        type: this.type.bind(this),
        int: this.int.bind(this),
        float: (name: string, value: number): OpAttribute => ({ name, type: this.binding.TF_ATTR_FLOAT, value }),
      };
      return FusedKernels.open(runner, probe, (x) => this.free(x));
    } finally {
      this.free(probe);
    }
  }

  private runAll(name: string, attributes: readonly OpAttribute[], inputs: readonly number[], outputs: number): Raw[] {
    return this.execute(name, attributes, inputs, outputs).map((output) => this.wrap(output));
  }

  private execute(name: string, attributes: readonly OpAttribute[], inputs: readonly number[], outputs: number): OpOutput[] {
    try {
      return this.binding.executeOp(name, attributes, inputs, outputs);
    } catch (error) {
      throw translateError(name, error);
    }
  }

  private create(shape: Shape, dtype: number, data: HostArray): number {
    try {
      return this.binding.createTensor(shape, dtype, data);
    } catch (error) {
      throw translateError('createTensor', error);
    }
  }

  private wrap(output: OpOutput): Raw {
    const dtype = DTYPE_OF.get(output.dtype);
    invariant(dtype, `TensorFlow returned dtype ${output.dtype}`);
    return { id: output.id, shape: output.shape, dtype };
  }

  private readVia(x: Raw, dtype: 'i32' | 'f32'): HostArray {
    const wide = this.cast(x, dtype);
    try {
      return this.binding.tensorDataSync(wide.id);
    } finally {
      this.free(wide);
    }
  }

  private type(name: string, value: number): OpAttribute {
    return { name, type: this.binding.TF_ATTR_TYPE, value };
  }

  private flag(name: string, value: boolean): OpAttribute {
    return { name, type: this.binding.TF_ATTR_BOOL, value };
  }

  private int(name: string, value: number): OpAttribute {
    return { name, type: this.binding.TF_ATTR_INT, value };
  }
}

/** Multiplications of a batched product up to which the plain kernel is faster on the processor; measured, see docs/experiments.md. */
const PLAIN_PRODUCT_MAX = 1 << 19;

function multiplications(a: Shape, b: Shape, transposeB: boolean): number {
  const columns = b.at(transposeB ? -2 : -1) ?? 1;
  return a.reduce((product, size) => product * size, columns);
}

function first<T>(items: readonly T[]): T {
  const item = items[0];
  invariant(item !== undefined, 'an op needs at least one tensor');
  return item;
}

function translateError(op: string, error: unknown): TunefleetError {
  const message = errorMessage(error);
  if (/OOM|RESOURCE_EXHAUSTED|out of memory|failed to allocate|bad_alloc/i.test(message)) {
    return new TunefleetError('out_of_device_memory', `the device ran out of memory in ${op}. Lower the micro batch size or the maximum length, or switch recomputation on`, {
      cause: error,
      details: { op },
    });
  }
  return new TunefleetError('invariant', `TensorFlow op ${op} failed: ${message}`, { cause: error, details: { op } });
}
