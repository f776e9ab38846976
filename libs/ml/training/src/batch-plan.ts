import { epochOrder } from '@tunefleet/ml-data';

/** Examples of one forward and backward pass, longest first. */
export type MicroBatch = Int32Array;

/** One optimiser step: its micro-batches, the one with the longest examples first, so that memory peaks at once and not late. */
export interface StepPlan {
  readonly microBatches: readonly MicroBatch[];
}

export interface EpochPlanOptions {
  /** [N] tokens per example. */
  readonly lengths: ArrayLike<number>;
  readonly seed: number;
  /** From 0. */
  readonly epoch: number;
  /** Examples per optimiser step. */
  readonly batchSize: number;
  /** Room of a pass, in rows of the longest example: shorter ones share a row's room. */
  readonly microBatchSize: number;
}

/** Batches whose examples are sorted by length among each other: more save padding, fewer mix lengths better. */
const BATCHES_PER_POOL = 16;
/** Separates the order of batches from the order of examples under one seed. */
const BATCH_ORDER_SALT = 0x5bd1e995;

export function stepsPerEpoch(examples: number, batchSize: number): number {
  return Math.ceil(examples / batchSize);
}

/**
 * The optimiser steps of one epoch, a function of its arguments alone. Every example occurs once.
 *
 * To save padding, examples of like length share a batch: the shuffled examples are cut into pools of 16 batches, each pool is sorted by length and cut into
 * batches, and the batches are shuffled. What does not fill a batch is a random sample taken before sorting, so that no length is favoured; it comes last.
 */
export function planEpoch({ lengths, seed, epoch, batchSize, microBatchSize }: EpochPlanOptions): StepPlan[] {
  const order = epochOrder(lengths.length, seed, epoch);
  const rest = order.length % batchSize;
  const shortBatch = order.subarray(0, rest);
  const batches: Int32Array[] = [];
  const poolSize = batchSize * BATCHES_PER_POOL;
  for (let begin = rest; begin < order.length; begin += poolSize) {
    const pool = longestFirst(order.subarray(begin, begin + poolSize), lengths);
    batches.push(...chunks(pool, batchSize));
  }
  const batchOrder = epochOrder(batches.length, (seed ^ BATCH_ORDER_SALT) >>> 0, epoch);
  const ordered = Array.from(batchOrder, (index) => batches[index] as Int32Array);
  if (rest > 0) ordered.push(longestFirst(shortBatch, lengths));
  const room = roomOf(lengths, microBatchSize);
  return ordered.map((batch) => ({ microBatches: evenPasses(batch, lengths, room) }));
}

/** Micro-batches of like length over the whole set, in no random order; for passes without training. @param microBatchSize as of `planEpoch` */
export function planPass(lengths: ArrayLike<number>, microBatchSize: number): MicroBatch[] {
  const all = Int32Array.from({ length: lengths.length }, (_, index) => index);
  return fill(longestFirst(all, lengths), lengths, roomOf(lengths, microBatchSize));
}

/** Tokens that a pass may hold. */
function roomOf(lengths: ArrayLike<number>, microBatchSize: number): number {
  let longest = 0;
  for (let index = 0; index < lengths.length; index++) longest = Math.max(longest, lengths[index] as number);
  return microBatchSize * longest;
}

/** The fewest passes of at most `room` tokens, and of these the most even: small passes are slow. */
function evenPasses(examples: Int32Array, lengths: ArrayLike<number>, room: number): MicroBatch[] {
  const { length: fewest } = fill(examples, lengths, room);
  let [tooLittle, enough] = [(lengths[examples[0] as number] as number) - 1, room];
  while (enough - tooLittle > 1) {
    const middle = (tooLittle + enough) >> 1;
    if (fill(examples, lengths, middle).length > fewest) tooLittle = middle;
    else enough = middle;
  }
  return fill(examples, lengths, enough);
}

/** As many examples one after the other as have room, again and again. */
function fill(examples: Int32Array, lengths: ArrayLike<number>, room: number): MicroBatch[] {
  const passes: MicroBatch[] = [];
  let begin = 0;
  let held = 0;
  examples.forEach((example, place) => {
    const length = lengths[example] as number;
    if (held > 0 && held + length > room) {
      passes.push(examples.slice(begin, place));
      [begin, held] = [place, 0];
    }
    held += length;
  });
  if (held > 0) passes.push(examples.slice(begin));
  return passes;
}

/** Ties keep their order: the result must not depend on the sort algorithm. */
function longestFirst(indices: Int32Array, lengths: ArrayLike<number>): Int32Array {
  const place = Array.from(indices, (index, position) => ({ index, position }));
  place.sort((a, b) => (lengths[b.index] as number) - (lengths[a.index] as number) || a.position - b.position);
  return Int32Array.from(place, ({ index }) => index);
}

function chunks(indices: Int32Array, size: number): Int32Array[] {
  const parts: Int32Array[] = [];
  for (let begin = 0; begin < indices.length; begin += size) parts.push(indices.slice(begin, begin + size));
  return parts;
}
