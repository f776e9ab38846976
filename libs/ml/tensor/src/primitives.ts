import type { BinaryName, CompareName, ReduceName, UnaryName } from './backend';
import type { Device } from './device';
import type { DType, Shape } from './dtype';
import type { Tensor } from './tensor';

/**
 * The backend's ops on `Tensor` handles: eager, no gradients recorded. Differentiable ops are in `ops/`; they are written in these.
 * Results belong to the caller (or the enclosing scope).
 */
export class Primitives {
  constructor(private readonly device: Device) {}

  /** The input itself, newly held, when it has that dtype already. */
  cast(x: Tensor, dtype: DType): Tensor {
    if (x.dtype === dtype) return this.device.alias(x);
    return this.device.adopt(this.device.backend.cast(x.raw, dtype));
  }

  /** A view: shares memory with `x`. One size may be -1. */
  reshape(x: Tensor, shape: Shape): Tensor {
    if (shape.length === x.rank && shape.every((size, axis) => size === x.shape[axis])) return this.device.alias(x);
    return this.device.adopt(this.device.backend.reshape(x.raw, shape), x);
  }

  transpose(x: Tensor, perm: readonly number[]): Tensor {
    return this.device.adopt(this.device.backend.transpose(x.raw, perm));
  }

  slice(x: Tensor, begin: readonly number[], size: readonly number[]): Tensor {
    return this.device.adopt(this.device.backend.slice(x.raw, begin, size));
  }

  concat(xs: readonly Tensor[], axis: number): Tensor {
    return this.device.adopt(this.device.backend.concat(xs.map((x) => x.raw), axis));
  }

  split(x: Tensor, sizes: readonly number[], axis: number): Tensor[] {
    return this.device.backend.split(x.raw, sizes, axis).map((raw) => this.device.adopt(raw));
  }

  tile(x: Tensor, reps: readonly number[]): Tensor {
    return this.device.adopt(this.device.backend.tile(x.raw, reps));
  }

  unary(name: UnaryName, x: Tensor): Tensor {
    return this.device.adopt(this.device.backend.unary(name, x.raw));
  }

  binary(name: BinaryName, a: Tensor, b: Tensor): Tensor {
    return this.device.adopt(this.device.backend.binary(name, a.raw, b.raw));
  }

  add(a: Tensor, b: Tensor): Tensor {
    return this.binary('add', a, b);
  }

  sub(a: Tensor, b: Tensor): Tensor {
    return this.binary('sub', a, b);
  }

  mul(a: Tensor, b: Tensor): Tensor {
    return this.binary('mul', a, b);
  }

  div(a: Tensor, b: Tensor): Tensor {
    return this.binary('div', a, b);
  }

  /** x * factor; `x` must be f32 or bf16. */
  scale(x: Tensor, factor: number): Tensor {
    return this.binary('mul', x, this.device.scalar(factor, x.dtype === 'bf16' ? 'bf16' : 'f32'));
  }

  addAll(xs: readonly Tensor[]): Tensor {
    return this.device.adopt(this.device.backend.addAll(xs.map((x) => x.raw)));
  }

  compare(name: CompareName, a: Tensor, b: Tensor): Tensor {
    return this.device.adopt(this.device.backend.compare(name, a.raw, b.raw));
  }

  select(condition: Tensor, a: Tensor, b: Tensor): Tensor {
    return this.device.adopt(this.device.backend.select(condition.raw, a.raw, b.raw));
  }

  reduce(name: ReduceName, x: Tensor, axes: readonly number[], keepDims = false): Tensor {
    return this.device.adopt(this.device.backend.reduce(name, x.raw, axes, keepDims));
  }

  /** Sum of every element, rank 0. */
  sumAll(x: Tensor): Tensor {
    return this.reduce('sum', x, x.shape.map((_, axis) => axis));
  }

  argMax(x: Tensor, axis: number): Tensor {
    return this.device.adopt(this.device.backend.argMax(x.raw, axis));
  }

  /** Over the last axis. */
  softmax(x: Tensor): Tensor {
    return this.device.adopt(this.device.backend.softmax(x.raw));
  }

  matMul(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
    return this.device.adopt(this.device.backend.matMul(a.raw, b.raw, transposeA, transposeB));
  }

  batchMatMul(a: Tensor, b: Tensor, transposeA = false, transposeB = false): Tensor {
    return this.device.adopt(this.device.backend.batchMatMul(a.raw, b.raw, transposeA, transposeB));
  }

  gather(table: Tensor, indices: Tensor): Tensor {
    return this.device.adopt(this.device.backend.gather(table.raw, indices.raw));
  }

  /** Overwrites rows of `table` in place; see `Backend.writeRows`. Views of it see the change. */
  writeRows(table: Tensor, rows: Tensor, values: Tensor): void {
    this.device.backend.writeRows(table.raw, rows.raw, values.raw);
  }

  topK(x: Tensor, count: number): readonly [values: Tensor, indices: Tensor] {
    const [values, indices] = this.device.backend.topK(x.raw, count);
    return [this.device.adopt(values), this.device.adopt(indices)];
  }

  silu(x: Tensor): Tensor {
    return this.device.adopt(this.device.backend.silu(x.raw));
  }

  softmaxCrossEntropy(logits: Tensor, labels: Tensor): readonly [loss: Tensor, gradient: Tensor] {
    const [loss, gradient] = this.device.backend.softmaxCrossEntropy(logits.raw, labels.raw);
    return [this.device.adopt(loss), this.device.adopt(gradient)];
  }

  randomUniform(shape: Shape, key: readonly [number, number]): Tensor {
    return this.device.adopt(this.device.backend.randomUniform(shape, key));
  }

  zeros(shape: Shape, dtype: 'f32' | 'bf16'): Tensor {
    using unit = this.reshape(this.device.scalar(0, dtype), shape.map(() => 1));
    return this.tile(unit, shape);
  }
}
