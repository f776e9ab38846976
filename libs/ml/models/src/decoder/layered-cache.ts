import { invariant } from '@tunefleet/foundation';
import type { KeysValues } from '@tunefleet/ml-nn';
import type { CacheSlots, Device, FloatDType, Tensor } from '@tunefleet/ml-tensor';
import type { KeyValueCache } from '../causal-lm';
import type { KeyValueStore } from './block';

/** Room is made for this many tokens at a time, and for a share of those held: a copy of all of them then pays for many tokens. */
const ROOM_TOKENS = 64;
const ROOM_SHARE = 1 / 8;

/** A pass that is going on. */
interface Pass {
  readonly columns: number;
  /** The blocks see every slot, free ones too, and mask what is not theirs: nothing is copied, and shapes stay the same for many tokens. */
  readonly everySlot: boolean;
  /** By layer, of virtual tokens before those of every row. */
  readonly lead: readonly KeysValues[] | null;
  /** Where the rows of new keys go in a buffer's [B*K*slots, D]; made at the first layer that writes rows. */
  places: Tensor | null;
  /** Zeros [B, K, ., D], which layers take a copy of; made at the first layer that wants room. */
  room: Tensor | null;
}

/** Of keys and of values alike. */
interface HeadSize {
  readonly heads: number;
  readonly width: number;
  readonly dtype: FloatDType;
}

/** Keys or values of a layer. */
interface Buffer {
  /** [B, K, slots, D] */
  readonly whole: Tensor;
  /** The same memory as [B*K*slots, D], from the first row on that is written in it. */
  flat: Tensor | null;
}

/** Keys and values per layer in buffers with room to grow, written in place. Rows may hold different numbers of tokens. */
export class LayeredCache implements KeyValueCache, KeyValueStore {
  private readonly keys: (Buffer | null)[];
  private readonly values: (Buffer | null)[];
  private held: Int32Array;
  /** Tokens for which a row has room, virtual ones included. */
  private slotsPerRow = 0;
  private leadLength = 0;
  private pass: Pass | null = null;
  private closed = false;

  constructor(
    private readonly device: Device,
    rows: number,
    layers: number,
  ) {
    this.keys = new Array<Buffer | null>(layers).fill(null);
    this.values = new Array<Buffer | null>(layers).fill(null);
    this.held = new Int32Array(rows);
  }

  get rows(): number {
    return this.held.length;
  }

  get lengths(): Int32Array {
    return this.held;
  }

  get length(): number {
    return this.held.reduce((most, length) => Math.max(most, length), 0);
  }

  get isEven(): boolean {
    return this.held.every((length) => length === this.held[0]);
  }

  /**
   * Begins a pass of `columns` new tokens per row.
   * @param lead virtual tokens by layer, borrowed; the same in every pass
   * @returns slots of a row, which an `everySlot` pass sees
   */
  begin(columns: number, everySlot: boolean, lead: readonly KeysValues[] | null): number {
    invariant(!this.closed, 'the cache is closed');
    invariant(columns === 1 || this.isEven, 'several tokens at once need rows of equal length');
    const leadLength = lead?.[0]?.k.dim(2) ?? 0;
    invariant(this.slotsPerRow === 0 || this.leadLength === leadLength, `a cache made behind ${this.leadLength} virtual tokens was used behind ${leadLength}`);
    this.leadLength = leadLength;
    const needed = leadLength + this.length + columns;
    if (needed > this.slotsPerRow) this.slotsPerRow = Math.ceil((needed + ROOM_SHARE * needed) / ROOM_TOKENS) * ROOM_TOKENS;
    this.end();
    this.pass = { columns, everySlot, lead, places: null, room: null };
    return this.slotsPerRow;
  }

  append(layer: number, k: Tensor, v: Tensor): KeysValues {
    const { pass } = this;
    invariant(pass, 'no pass has begun');
    const lead = pass.lead?.[layer];
    const all = { k: this.write(pass, this.keys, layer, k, lead?.k), v: this.write(pass, this.values, layer, v, lead?.v) };
    if (pass.everySlot) return all;
    const seen = this.leadLength + this.length + pass.columns;
    return seen === pass.columns ? { k, v } : { k: this.firstSlots(all.k, seen), v: this.firstSlots(all.v, seen) };
  }

  slots(layer: number, size: HeadSize): CacheSlots<Tensor> | null {
    const { pass } = this;
    invariant(pass, 'no pass has begun');
    if (!pass.everySlot) return null;
    const lead = pass.lead?.[layer];
    const [k, v] = [this.withRoom(pass, this.keys, layer, size, lead?.k), this.withRoom(pass, this.values, layer, size, lead?.v)];
    return { k: k.whole, v: v.whole, places: this.places(pass, size.heads) };
  }

  /** Makes the tokens of the pass count. */
  commit(): void {
    const columns = this.pass?.columns ?? 0;
    this.held = this.held.map((length) => length + columns);
    this.end();
  }

  /** Ends a pass; without `commit` as if it had not been. */
  end(): void {
    this.pass?.places?.dispose();
    this.pass?.room?.dispose();
    this.pass = null;
  }

  truncate(lengths: number | Int32Array): void {
    const wanted = typeof lengths === 'number' ? this.held.map((length) => Math.min(length, lengths)) : lengths;
    invariant(wanted.length === this.rows && wanted.every((length, row) => length >= 0 && length <= (this.held[row] ?? 0)), `a cache of [${this.held.join(', ')}] tokens cannot be cut to [${wanted.join(', ')}]`);
    if (typeof lengths === 'number') invariant(lengths >= 0 && lengths <= this.length, `a cache of ${this.length} tokens cannot be cut to ${lengths}`);
    this.held = Int32Array.from(wanted);
    if (this.length === 0) this.free();
  }

  keepRows(rows: Int32Array): void {
    invariant(rows.every((row) => row >= 0 && row < this.rows), `rows ${rows.join(', ')} of ${this.rows}`);
    this.held = Int32Array.from(rows, (row) => this.held[row] ?? 0);
    if (rows.length === 0) return this.free();
    using indices = this.device.tensor(Int32Array.from(rows), [rows.length], 'i32');
    for (const store of [this.keys, this.values]) {
      store.forEach((buffer, layer) => {
        if (buffer) this.replace(store, layer, () => this.device.primitives.gather(buffer.whole, indices));
      });
    }
  }

  [Symbol.dispose](): void {
    if (this.closed) return;
    this.closed = true;
    this.end();
    this.free();
  }

  private places(pass: Pass, heads: number): Tensor {
    if (pass.places) return pass.places;
    const { columns } = pass;
    const places = new Int32Array(this.rows * heads * columns);
    let next = 0;
    for (let row = 0; row < this.rows; row++) {
      const first = this.leadLength + (this.held[row] ?? 0);
      for (let head = 0; head < heads; head++) {
        for (let column = 0; column < columns; column++) places[next++] = (row * heads + head) * this.slotsPerRow + first + column;
      }
    }
    return (pass.places = this.device.detached(() => this.device.tensor(places, [places.length], 'i32')));
  }

  /** @param added of the tokens of the pass   @returns the layer's buffer with them in it */
  private write(pass: Pass, store: (Buffer | null)[], layer: number, added: Tensor, lead: Tensor | undefined): Tensor {
    const p = this.device.primitives;
    const size = { heads: added.dim(1), width: added.dim(3), dtype: added.dtype as FloatDType };
    const free = this.slotsPerRow - (lead?.dim(2) ?? 0) - pass.columns;
    // The first tokens are laid down as they are, with the room behind them.
    if (!store[layer] && free > 0) return this.replace(store, layer, () => p.concat([...this.leading(lead, size), added, this.room(pass, size, free)], 2)).whole;
    const buffer = this.withRoom(pass, store, layer, size, lead);
    buffer.flat ??= this.device.detached(() => p.reshape(buffer.whole, [-1, size.width]));
    const places = this.places(pass, size.heads);
    using rows = p.reshape(added, [places.dim(0), size.width]);
    p.writeRows(buffer.flat, places, rows);
    return buffer.whole;
  }

  private withRoom(pass: Pass, store: (Buffer | null)[], layer: number, size: HeadSize, lead: Tensor | undefined): Buffer {
    const before = store[layer];
    if (before?.whole.dim(2) === this.slotsPerRow) return before;
    const [held] = before ? [before.whole] : this.leading(lead, size);
    const p = this.device.primitives;
    return this.replace(store, layer, () => (held ? p.concat([held, this.room(pass, size, this.slotsPerRow - held.dim(2))], 2) : p.zeros([this.rows, size.heads, this.slotsPerRow, size.width], size.dtype)));
  }

  /** Virtual tokens, alike in all rows. */
  private leading(lead: Tensor | undefined, { dtype }: HeadSize): Tensor[] {
    const p = this.device.primitives;
    return lead ? [p.tile(p.cast(lead, dtype), [this.rows, 1, 1, 1])] : [];
  }

  private room(pass: Pass, { heads, width, dtype }: HeadSize, slots: number): Tensor {
    if (pass.room?.dim(2) === slots) return pass.room;
    pass.room?.dispose();
    return (pass.room = this.device.detached(() => this.device.primitives.zeros([this.rows, heads, slots, width], dtype)));
  }

  private firstSlots(whole: Tensor, slots: number): Tensor {
    const [rows = 0, heads = 0, all = 0, width = 0] = whole.shape;
    return slots === all ? whole : this.device.primitives.slice(whole, [0, 0, 0, 0], [rows, heads, slots, width]);
  }

  private replace(store: (Buffer | null)[], layer: number, make: () => Tensor): Buffer {
    const next = { whole: this.device.detached(make), flat: null };
    store[layer]?.flat?.dispose();
    store[layer]?.whole.dispose();
    store[layer] = next;
    return next;
  }

  private free(): void {
    this.slotsPerRow = 0;
    for (const store of [this.keys, this.values]) {
      store.forEach((buffer, layer) => {
        buffer?.flat?.dispose();
        buffer?.whole.dispose();
        store[layer] = null;
      });
    }
  }
}
