import { TunefleetError } from '@tunefleet/foundation';
import type { Raw } from './backend';
import type { Device } from './device';
import type { DType, Shape } from './dtype';

/** Memory that one tensor or several views of it share; counted once. */
export interface Storage {
  readonly bytes: number;
  views: number;
}

let nextUid = 1;

/**
 * An immutable array on a device. The creator owns it and must `dispose` it once, or create it inside `device.scope`, which does.
 * `retain`/`release` are for code that must outlive the owner (the tape).
 */
export class Tensor {
  /** Never reused, also valid after disposal: gradients are looked up by it. */
  readonly uid: number = nextUid++;
  private references = 1;
  private owned = true;

  constructor(
    readonly device: Device,
    private readonly buffer: Raw,
    readonly storage: Storage,
    /** Set for an alias: the tensor whose buffer it is. */
    private readonly original: Tensor | null = null,
  ) {}

  get shape(): Shape {
    return this.buffer.shape;
  }

  get dtype(): DType {
    return this.buffer.dtype;
  }

  get rank(): number {
    return this.buffer.shape.length;
  }

  /** Size of axis `index`; negative counts from the end. */
  dim(index: number): number {
    const size = this.buffer.shape.at(index);
    if (size === undefined) throw new TunefleetError('invariant', `axis ${index} of a tensor of shape [${this.shape.join(', ')}]`);
    return size;
  }

  get disposed(): boolean {
    return this.references === 0;
  }

  /** The backend's buffer. @throws when nobody holds this tensor any more */
  get raw(): Raw {
    if (this.references === 0) {
      throw new TunefleetError('invariant', `tensor #${this.uid} [${this.shape.join(', ')}] ${this.dtype} was used after it was disposed`);
    }
    return this.buffer;
  }

  /** Gives up ownership; a second call does nothing. */
  dispose(): void {
    if (!this.owned) return;
    this.owned = false;
    this.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  retain(): this {
    if (this.references === 0) void this.raw;
    this.references++;
    return this;
  }

  release(): void {
    this.references--;
    if (this.references > 0) return;
    if (this.original) this.original.release();
    else this.device.reclaim(this.buffer, this.storage);
  }
}
