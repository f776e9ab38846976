import { TF, type Binding } from './binding';

/** Shapes, axes and permutations as int32 handles, made once: they recur every step. */
export class ConstantCache {
  private readonly handles = new Map<string, number>();

  constructor(private readonly binding: Binding) {}

  scalar(value: number): number {
    return this.handle(`s${value}`, [], Int32Array.of(value));
  }

  vector(values: readonly number[]): number {
    return this.handle(`v${values.join()}`, [values.length], Int32Array.from(values));
  }

  /** Least recently used goes first, so a handle just given out is never the one evicted for its neighbour. */
  private handle(key: string, shape: readonly number[], values: Int32Array): number {
    const known = this.handles.get(key);
    if (known !== undefined) this.handles.delete(key);
    else if (this.handles.size >= MAX_CONSTANTS) this.evictOldest();
    const id = known ?? this.binding.createTensor(shape, TF.i32, values);
    this.handles.set(key, id);
    return id;
  }

  private evictOldest(): void {
    for (const [key, id] of this.handles) {
      this.handles.delete(key);
      this.binding.deleteTensor(id);
      return;
    }
  }
}

const MAX_CONSTANTS = 8192;
