import { TunefleetError } from '@tunefleet/foundation';
import { IGNORED_LABEL, type TokenisedDataset, type TokenisedExample } from '../tokenised-dataset';

/** Five bytes per token are held: 2^27 tokens are 640 MB. */
export const TOKENS_MAX = 1 << 27;

/** All tokens of a dataset end to end. */
export interface PackedTokens {
  /** [examples] */
  readonly lengths: Int32Array;
  /** [tokens] */
  readonly ids: Int32Array;
  /** [tokens] 1 where the token carries loss. */
  readonly learned: Uint8Array;
}

/** Grows two flat arrays by doubling; far smaller than one object per example. */
export class TokenPool {
  #ids = new Int32Array(1 << 14);
  #learned = new Uint8Array(1 << 14);
  #used = 0;
  readonly #lengths: number[] = [];

  /** @throws TunefleetError `capacity` when the file has more tokens than fit */
  add({ inputIds, labels }: TokenisedExample): void {
    const end = this.#used + inputIds.length;
    this.#makeRoom(end);
    this.#ids.set(inputIds, this.#used);
    for (let index = 0; index < labels.length; index++) this.#learned[this.#used + index] = labels[index] === IGNORED_LABEL ? 0 : 1;
    this.#used = end;
    this.#lengths.push(inputIds.length);
  }

  /** Examples that another pool has collected. @throws as `add` */
  append({ lengths, ids, learned }: PackedTokens): void {
    const end = this.#used + ids.length;
    this.#makeRoom(end);
    this.#ids.set(ids, this.#used);
    this.#learned.set(learned, this.#used);
    this.#used = end;
    for (const length of lengths) this.#lengths.push(length);
  }

  finish(): PackedTokens {
    return { lengths: Int32Array.from(this.#lengths), ids: this.#ids.slice(0, this.#used), learned: this.#learned.slice(0, this.#used) };
  }

  #makeRoom(needed: number): void {
    if (needed > TOKENS_MAX) throw new TunefleetError('capacity', `the file has more than ${TOKENS_MAX} tokens; split it`, { reason: 'too_many_tokens', retry: 'never' });
    if (needed <= this.#ids.length) return;
    const size = Math.min(TOKENS_MAX, Math.max(needed, this.#ids.length * 2));
    const ids = new Int32Array(size);
    ids.set(this.#ids.subarray(0, this.#used));
    const learned = new Uint8Array(size);
    learned.set(this.#learned.subarray(0, this.#used));
    this.#ids = ids;
    this.#learned = learned;
  }
}

/** Examples over packed tokens: `inputIds` are views, `labels` are made on request. */
export class PackedDataset implements TokenisedDataset {
  readonly fingerprint: string;
  readonly #packed: PackedTokens;
  readonly #offsets: Float64Array;

  constructor(fingerprint: string, packed: PackedTokens) {
    this.fingerprint = fingerprint;
    this.#packed = packed;
    this.#offsets = new Float64Array(packed.lengths.length + 1);
    for (let index = 0; index < packed.lengths.length; index++) this.#offsets[index + 1] = (this.#offsets[index] as number) + (packed.lengths[index] as number);
  }

  get length(): number {
    return this.#packed.lengths.length;
  }

  get lengths(): Int32Array {
    return this.#packed.lengths;
  }

  example(index: number): TokenisedExample {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) throw new TunefleetError('invariant', `example ${index} of ${this.length}`);
    const start = this.#offsets[index] as number;
    const end = this.#offsets[index + 1] as number;
    const inputIds = this.#packed.ids.subarray(start, end);
    const learned = this.#packed.learned.subarray(start, end);
    return { inputIds, labels: inputIds.map((id, position) => (learned[position] === 1 ? id : IGNORED_LABEL)) };
  }
}
