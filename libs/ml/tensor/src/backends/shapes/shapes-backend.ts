import { invariant } from '@tunefleet/foundation';
import type { Backend, DeviceInfo, Raw } from '../../backend';
import { elementCount, type DType, type HostArray, type Shape } from '../../dtype';
import type { FusedOps } from '../../fused-ops';
import { ShapesFused } from './shapes-fused';

/**
 * Computes nothing and holds no data, but gives every result its shape and dtype: a computation on it counts the bytes that it would take on the device it
 * stands for. What is read is zero.
 */
export class ShapesBackend implements Backend {
  readonly info: DeviceInfo;
  readonly untransposedWeights: Backend['untransposedWeights'];
  readonly fused: FusedOps | null;
  private made = 0;

  constructor({ info, untransposedWeights, fused }: Pick<Backend, 'info' | 'untransposedWeights' | 'fused'>) {
    this.info = info;
    this.untransposedWeights = untransposedWeights;
    this.fused = fused && new ShapesFused((shape, dtype) => this.make(shape, dtype));
  }

  upload(_data: HostArray, shape: Shape, dtype: DType): Raw {
    return this.make(shape, dtype);
  }

  /** A buffer without anything to fill it. */
  make(shape: Shape, dtype: DType): Raw {
    return { id: this.made++, shape, dtype };
  }

  read({ shape, dtype }: Raw): HostArray {
    const count = elementCount(shape);
    switch (dtype) {
      case 'f32':
        return new Float32Array(count);
      case 'bf16':
        return new Uint16Array(count);
      case 'i32':
        return new Int32Array(count);
      case 'u8':
      case 'bool':
        return new Uint8Array(count);
    }
  }

  free(): void {}

  cast(x: Raw, dtype: DType): Raw {
    return this.make(x.shape, dtype);
  }

  reshape(x: Raw, shape: Shape): Raw {
    const known = shape.reduce((product, size) => (size === -1 ? product : product * size), 1);
    return this.make(shape.map((size) => (size === -1 ? elementCount(x.shape) / known : size)), x.dtype);
  }

  transpose(x: Raw, perm: readonly number[]): Raw {
    return this.make(perm.map((axis) => x.shape[axis] as number), x.dtype);
  }

  slice(x: Raw, begin: readonly number[], size: readonly number[]): Raw {
    return this.make(size.map((length, axis) => (length === -1 ? (x.shape[axis] as number) - (begin[axis] as number) : length)), x.dtype);
  }

  concat(xs: readonly Raw[], axis: number): Raw {
    const [first] = xs as readonly [Raw];
    return this.make(withSize(first.shape, axis, xs.reduce((sum, { shape }) => sum + (shape.at(axis) as number), 0)), first.dtype);
  }

  split(x: Raw, sizes: readonly number[], axis: number): Raw[] {
    return sizes.map((size) => this.make(withSize(x.shape, axis, size), x.dtype));
  }

  tile(x: Raw, reps: readonly number[]): Raw {
    return this.make(x.shape.map((size, axis) => size * (reps[axis] as number)), x.dtype);
  }

  unary(_name: string, x: Raw): Raw {
    return this.make(x.shape, x.dtype);
  }

  binary(_name: string, a: Raw, b: Raw): Raw {
    return this.make(broadcast(a.shape, b.shape), a.dtype);
  }

  compare(_name: string, a: Raw, b: Raw): Raw {
    return this.make(broadcast(a.shape, b.shape), 'bool');
  }

  select(condition: Raw, a: Raw, b: Raw): Raw {
    return this.make(broadcast(condition.shape, broadcast(a.shape, b.shape)), a.dtype);
  }

  reduce(_name: string, x: Raw, axes: readonly number[], keepDims: boolean): Raw {
    const reduced = new Set(axes.map((axis) => (axis + x.shape.length) % x.shape.length));
    const shape = keepDims ? x.shape.map((size, axis) => (reduced.has(axis) ? 1 : size)) : x.shape.filter((_, axis) => !reduced.has(axis));
    return this.make(shape, x.dtype);
  }

  argMax(x: Raw, axis: number): Raw {
    return this.make(x.shape.filter((_, index) => index !== (axis + x.shape.length) % x.shape.length), 'i32');
  }

  softmax(x: Raw): Raw {
    return this.make(x.shape, x.dtype);
  }

  addAll(xs: readonly Raw[]): Raw {
    const [first] = xs as readonly [Raw];
    return this.make(first.shape, first.dtype);
  }

  matMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    return this.batchMatMul(a, b, transposeA, transposeB);
  }

  batchMatMul(a: Raw, b: Raw, transposeA: boolean, transposeB: boolean): Raw {
    const [rows, inner] = lastTwo(a.shape, transposeA);
    const [others, columns] = lastTwo(b.shape, transposeB);
    invariant(inner === others, `a product of [${a.shape.join(', ')}] and [${b.shape.join(', ')}]`);
    return this.make([...broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2)), rows, columns], a.dtype);
  }

  gather(table: Raw, indices: Raw): Raw {
    return this.make([...indices.shape, ...table.shape.slice(1)], table.dtype);
  }

  writeRows(): void {}

  topK(x: Raw, count: number): readonly [values: Raw, indices: Raw] {
    const shape = withSize(x.shape, -1, count);
    return [this.make(shape, x.dtype), this.make(shape, 'i32')];
  }

  silu(x: Raw): Raw {
    return this.make(x.shape, x.dtype);
  }

  softmaxCrossEntropy(logits: Raw): readonly [loss: Raw, gradient: Raw] {
    return [this.make(logits.shape.slice(0, -1), 'f32'), this.make(logits.shape, 'f32')];
  }

  randomUniform(shape: Shape): Raw {
    return this.make(shape, 'f32');
  }
}

function withSize(shape: Shape, axis: number, size: number): number[] {
  const at = (axis + shape.length) % shape.length;
  return shape.map((each, index) => (index === at ? size : each));
}

function lastTwo(shape: Shape, transposed: boolean): readonly [rows: number, columns: number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transposed ? [columns, rows] : [rows, columns];
}

function broadcast(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  const sizeOf = (shape: Shape, axis: number): number => shape[axis - rank + shape.length] ?? 1;
  return Array.from({ length: rank }, (_, axis) => {
    const [one, other] = [sizeOf(a, axis), sizeOf(b, axis)];
    invariant(one === other || one === 1 || other === 1, `[${a.join(', ')}] and [${b.join(', ')}] do not broadcast`);
    return one === 1 ? other : one;
  });
}
