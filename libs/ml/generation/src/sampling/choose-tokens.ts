import type { Tensor } from '@tunefleet/ml-tensor';
import { checkFinite, drawAmong, GREEDY, sampleToken, type Sampling } from './sampler';

/** Largest `topK` for which the device sorts; beyond it rows are read whole. */
const DEVICE_TOP_K_MAX = 1024;

/**
 * The next token of every row, as `sampleToken` chooses it. Of rows whose likeliest tokens decide only those leave the device.
 * @param logits [N, V] f32, borrowed   @param position of the new token in its text
 * @throws TunefleetError `numerical` when a row has no finite logit
 */
export function chooseTokens(logits: Tensor, position: number, sampling: Sampling = GREEDY): Int32Array {
  const { device } = logits;
  const count = sampling.temperature === 0 ? 1 : sampling.topK;
  const vocabulary = logits.dim(1);
  if (count === 0 || count > Math.min(DEVICE_TOP_K_MAX, vocabulary)) {
    return rowsOf(device.readFloats(logits), vocabulary, (row) => sampleToken(row, sampling, 0, position));
  }
  return device.scope(() => {
    const [likeliest, ids] = device.primitives.topK(logits, count);
    const tokens = device.read(ids);
    return rowsOf(device.readFloats(likeliest), count, (row, index) => {
      checkFinite(row[0] ?? NaN);
      return tokens[index * count + (count === 1 ? 0 : drawAmong(row, sampling, 0, position))] ?? 0;
    });
  });
}

function rowsOf(values: Float32Array, width: number, choose: (row: Float32Array, index: number) => number): Int32Array {
  return Int32Array.from({ length: values.length / width }, (_, index) => choose(values.subarray(index * width, (index + 1) * width), index));
}
