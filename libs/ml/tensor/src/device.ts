import { TunefleetError } from '@tunefleet/foundation';
import type { Backend, DeviceInfo, Raw } from './backend';
import { bytesPerElement, elementCount, type DType, type HostArrayOf, type Shape } from './dtype';
import { FusedPrimitives } from './fused-primitives';
import { Primitives } from './primitives';
import type { Tape } from './tape/tape';
import { Tensor, type Storage } from './tensor';

export interface MemoryCounters {
  /** Buffers not yet freed, views included. */
  readonly liveHandles: number;
  readonly liveBytes: number;
  /** Highest `liveBytes` since the last `resetPeak`. */
  readonly peakBytes: number;
}

/** One compute device: creation and reading of tensors, scopes, memory counters, and the tape of the gradient now recorded, if any. */
export class Device {
  /** Eager ops without gradients. */
  readonly primitives: Primitives;
  /** Eager ops that do several of `primitives` at once, where the backend has them. */
  readonly fused: FusedPrimitives | null;
  /** Set by `gradients` while it records. */
  tape: Tape | null = null;
  private scopes: Tensor[][] = [];
  private readonly scalars = new Map<string, Tensor>();
  private liveHandles = 0;
  private liveBytes = 0;
  private peakBytes = 0;
  private closed = false;

  constructor(readonly backend: Backend) {
    this.primitives = new Primitives(this);
    this.fused = backend.fused && new FusedPrimitives(this, backend.fused);
  }

  get info(): DeviceInfo {
    return this.backend.info;
  }

  get memory(): MemoryCounters {
    return { liveHandles: this.liveHandles, liveBytes: this.liveBytes, peakBytes: this.peakBytes };
  }

  /** Handles among `liveHandles` that are constants the device keeps. */
  get cachedScalars(): number {
    return this.scalars.size;
  }

  resetPeak(): void {
    this.peakBytes = this.liveBytes;
  }

  /**
   * Copies host data to the device. `bf16` takes raw bits.
   * The array is given up: the backend may go on using its memory, so the caller must not write to it afterwards.
   */
  tensor<D extends DType>(data: HostArrayOf[D], shape: Shape, dtype: D): Tensor {
    if (data.length !== elementCount(shape)) {
      throw new TunefleetError('invariant', `shape [${shape.join(', ')}] wants ${elementCount(shape)} elements, got ${data.length}`);
    }
    return this.adopt(this.backend.upload(data, shape, dtype));
  }

  /** A rank 0 constant kept by the device; use it at once and do not dispose it. */
  scalar(value: number, dtype: 'f32' | 'bf16' | 'i32'): Tensor {
    const key = `${dtype} ${value}`;
    const known = this.scalars.get(key);
    if (known) {
      this.scalars.delete(key);
      this.scalars.set(key, known);
      return known;
    }
    this.evictScalar();
    const base = this.backend.upload(dtype === 'i32' ? Int32Array.of(value) : Float32Array.of(value), [], dtype === 'i32' ? 'i32' : 'f32');
    const raw = dtype === 'bf16' ? this.backend.cast(base, 'bf16') : base;
    if (raw !== base) this.backend.free(base);
    const scalar = this.count(raw, null);
    this.scalars.set(key, scalar);
    return scalar;
  }

  /** Copies a tensor to the host; bf16 as raw bits, bool as 0/1. Waits for the device. */
  read<D extends DType>(x: Tensor & { dtype: D }): HostArrayOf[D];
  read(x: Tensor): HostArrayOf[DType];
  read(x: Tensor): HostArrayOf[DType] {
    return this.backend.read(x.raw);
  }

  /** As `read`, widened or converted to float32. */
  readFloats(x: Tensor): Float32Array {
    if (x.dtype === 'f32') return this.backend.read(x.raw) as Float32Array;
    const wide = this.backend.cast(x.raw, 'f32');
    try {
      return this.backend.read(wide) as Float32Array;
    } finally {
      this.backend.free(wide);
    }
  }

  /**
   * Runs `fn` and disposes every tensor created meanwhile but the ones in its result (a tensor, or arrays, plain objects and maps of them),
   * which pass to the enclosing scope or the caller. Not for async functions.
   */
  scope<T>(fn: () => T): T {
    const created: Tensor[] = [];
    this.scopes.push(created);
    let kept: Set<Tensor> | null = null;
    try {
      const result = fn();
      if (result instanceof Promise) throw new TunefleetError('invariant', 'device.scope was given an async function');
      kept = new Set<Tensor>();
      collectTensors(result, kept);
      return result;
    } finally {
      this.scopes.pop();
      const outer = this.scopes.at(-1);
      for (const tensor of created) {
        if (kept?.has(tensor)) outer?.push(tensor);
        else tensor.dispose();
      }
    }
  }

  /** `scope`, but what it returns outlives the scopes open around it and is the caller's to dispose: for caches that live between calls. */
  detached<T>(fn: () => T): T {
    const outer = this.scopes;
    this.scopes = [];
    try {
      return this.scope(fn);
    } finally {
      this.scopes = outer;
    }
  }

  /** Takes charge of a backend buffer. `viewOf`: the tensor whose memory it shares. */
  adopt(raw: Raw, viewOf?: Tensor): Tensor {
    const tensor = this.count(raw, viewOf?.storage ?? null);
    this.scopes.at(-1)?.push(tensor);
    return tensor;
  }

  /** The same buffer under a second owner; costs no call to the backend. */
  alias(x: Tensor): Tensor {
    const alias = new Tensor(this, x.raw, x.storage, x.retain());
    this.scopes.at(-1)?.push(alias);
    return alias;
  }

  /** Called by `Tensor.release`; not for others. */
  reclaim(raw: Raw, storage: Storage): void {
    this.liveHandles--;
    storage.views--;
    if (storage.views === 0) this.liveBytes -= storage.bytes;
    if (!this.closed) this.backend.free(raw);
  }

  /** Frees what the device itself keeps. Tensors still held elsewhere become unusable. */
  close(): void {
    this.dropScalars();
    this.closed = true;
  }

  private count(raw: Raw, shared: Storage | null): Tensor {
    const storage = shared ?? { bytes: elementCount(raw.shape) * bytesPerElement(raw.dtype), views: 0 };
    if (storage.views === 0) this.liveBytes += storage.bytes;
    storage.views++;
    this.liveHandles++;
    if (this.liveBytes > this.peakBytes) this.peakBytes = this.liveBytes;
    return new Tensor(this, raw, storage);
  }

  /** Least recently used goes first, so a scalar just given out survives the next request. */
  private evictScalar(): void {
    if (this.scalars.size < MAX_SCALARS) return;
    for (const [key, scalar] of this.scalars) {
      this.scalars.delete(key);
      scalar.dispose();
      return;
    }
  }

  private dropScalars(): void {
    for (const scalar of this.scalars.values()) scalar.dispose();
    this.scalars.clear();
  }
}

const MAX_SCALARS = 1024;

function collectTensors(value: unknown, into: Set<Tensor>): void {
  if (value instanceof Tensor) into.add(value);
  else if (Array.isArray(value)) for (const item of value) collectTensors(item, into);
  else if (value instanceof Map) for (const item of value.values()) collectTensors(item, into);
  else if (value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) collectTensors(item, into);
  }
}
