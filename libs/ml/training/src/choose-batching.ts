import { TunefleetError } from '@tunefleet/foundation';
import type { Batching } from './settings';

export interface BatchingRequest {
  /** Examples per optimiser step. */
  readonly batchSize: number;
  /** Tokens of the longest example, padded: what the room of a pass is counted in. */
  readonly longestRow: number;
  /** The user's choice, taken unless memory is short. */
  readonly microBatchSizeMax?: number | undefined;
  /** Tokens at which a pass reaches the device's full speed; more only take memory. */
  readonly tokensPerPass: number;
  /** Bytes the device can still give. */
  readonly availableBytes: number;
  /** Highest need of a step above what is in use already, for passes of `microBatchSize` rows of the longest example. */
  estimateBytes(batching: Batching): number;
}

/**
 * The largest micro-batch that fits; blocks are recomputed only where even one example would not fit otherwise, because that costs a third of the speed.
 * @throws TunefleetError `out_of_device_memory` with the bytes needed and available
 */
export function chooseBatching(request: BatchingRequest): Batching {
  const { batchSize, longestRow, microBatchSizeMax, tokensPerPass, availableBytes } = request;
  const wanted = microBatchSizeMax ?? Math.max(1, Math.floor(tokensPerPass / longestRow));
  const sizes = descending(Math.min(batchSize, wanted));
  for (const recomputeBlocks of [false, true]) {
    for (const microBatchSize of sizes) {
      const batching = { microBatchSize, recomputeBlocks };
      if (request.estimateBytes(batching) <= availableBytes) return batching;
    }
  }
  const needed = request.estimateBytes({ microBatchSize: 1, recomputeBlocks: true });
  throw new TunefleetError(
    'out_of_device_memory',
    `one example of ${longestRow} tokens needs about ${megabytes(needed)} MB, ${megabytes(availableBytes)} MB are free on the device. ` +
      'Shorten the rows or lower max_seq_length, tune fewer modules or a lower rank, take a smaller base model, or use a device with more memory',
    { param: 'max_seq_length', details: { neededBytes: needed, availableBytes, longestRow } },
  );
}

function descending(from: number): number[] {
  const sizes: number[] = [];
  for (let size = from; size > 1; size = Math.ceil(size / 2)) sizes.push(size);
  return [...sizes, 1];
}

function megabytes(bytes: number): string {
  return Math.ceil(bytes / 1e6).toString();
}
