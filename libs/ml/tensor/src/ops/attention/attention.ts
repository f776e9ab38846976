import type { Device } from '../../device';
import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { bent, slopeAt } from '../softcap/softcap';

/** Added to a score that must not count; finite, so that no row can become NaN. */
const MASKED = -1e9;
/** Keys up to which the probabilities are kept for the backward pass: H * S per token, against some 3 C + 2 F of a block's other activations. */
const PROBABILITIES_KEPT_MAX = 256;

/** [T, S] f32: query i, at absolute position `offset + i`, sees the last `window` of the keys 0 .. offset + i. */
export function causalMask(device: Device, queries: number, keys: number, offset = 0, window = Infinity): Tensor {
  const mask = new Float32Array(queries * keys);
  for (let i = 0; i < queries; i++) {
    const end = Math.min(keys, offset + i + 1);
    mask.fill(MASKED, i * keys, i * keys + Math.max(0, end - window));
    mask.fill(MASKED, i * keys + end, (i + 1) * keys);
  }
  return device.tensor(mask, [queries, keys], 'f32');
}

/**
 * [B, 1, T, S] f32 for packed examples: causal, and only within equal segment numbers of a row. A segment's tokens follow each other; each of them stands behind
 * the `offset` earlier keys, as if it were alone with them.
 */
export function segmentMask(
  device: Device,
  segments: Int32Array,
  options: { readonly rows: number; readonly columns: number; readonly offset?: number; readonly window?: number },
): Tensor {
  const { rows, columns, offset = 0, window = Infinity } = options;
  const keys = offset + columns;
  const mask = new Float32Array(rows * columns * keys).fill(MASKED);
  for (let row = 0; row < rows; row++) {
    let start = 0;
    for (let i = 0; i < columns; i++) {
      if (i > 0 && segments[row * columns + i] !== segments[row * columns + i - 1]) start = i;
      const at = (row * columns + i) * keys;
      mask.fill(0, at + Math.max(0, offset + i - start + 1 - window), at + offset);
      mask.fill(0, at + offset + Math.max(start, i + 1 - window), at + offset + i + 1);
    }
  }
  return device.tensor(mask, [rows, 1, columns, keys], 'f32');
}

/** [B, 1, 1, T] f32: the first `lengths[b]` tokens of a row are seen by all, padding by none. */
export function paddingMask(device: Device, lengths: Int32Array, columns: number): Tensor {
  const mask = new Float32Array(lengths.length * columns);
  lengths.forEach((length, row) => mask.fill(MASKED, row * columns + length, (row + 1) * columns));
  return device.tensor(mask, [lengths.length, 1, 1, columns], 'f32');
}

/**
 * [B, 1, T, S] f32 for continuations that share their beginning: a token sees the `offset` earlier keys, and of the T new tokens those before it that belong to
 * its own branch or to the trunk (branch 0). With a window, only those whose position is less than that far behind its own; the earlier keys' positions count from 0.
 */
export function branchMask(
  device: Device,
  branches: Int32Array,
  options: { readonly rows: number; readonly columns: number; readonly offset: number; readonly window?: { readonly size: number; readonly positions: Int32Array } },
): Tensor {
  const { rows, columns, offset, window } = options;
  const keys = offset + columns;
  const mask = new Float32Array(rows * columns * keys);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      const at = (row * columns + i) * keys + offset;
      const own = branches[row * columns + i];
      for (let j = 0; j < columns; j++) {
        const other = branches[row * columns + j];
        if (j > i || (other !== 0 && other !== own)) mask[at + j] = MASKED;
      }
      if (!window) continue;
      const first = (window.positions[row * columns + i] ?? 0) - window.size + 1;
      mask.fill(MASKED, at - offset, at - offset + Math.max(0, Math.min(offset, first)));
      for (let j = 0; j < columns; j++) if ((window.positions[row * columns + j] ?? 0) < first) mask[at + j] = MASKED;
    }
  }
  return device.tensor(mask, [rows, 1, columns, keys], 'f32');
}

export interface AttentionOptions {
  /** Factor of the scores; default: 1 / sqrt(D). */
  readonly scale?: number;
  /** Scores are bent to softcap * tanh(score / softcap), before the mask comes in. */
  readonly softcap?: number | null;
}

/**
 * Softmax attention with grouped key/value heads; query head h uses key/value head floor(h / (H / K)).
 * Keeps q, k, v and its output; the probabilities [B, H, T, S] too where they are not larger than what a block keeps anyway, else they are computed
 * again in the backward pass.
 * Rows padded on the right need no mask of their own: under a causal mask no real token sees them.
 * @param q [B, H, T, D]   @param k [B, K, S, D]   @param v [B, K, S, D]
 * @param mask added to the scores, f32, [T, S] or [B, 1, T or 1, S]; null: every query sees every key
 * @returns [B, H, T, D] in the dtype of `q`; softmax in f32
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, options: AttentionOptions = {}): Tensor {
  const p = q.device.primitives;
  const [batch = 1, heads = 1, time = 1, width = 1] = q.shape;
  const groups = k.dim(1);
  const grouped = [batch, groups, (heads / groups) * time, width];
  // On the keys, of which there are fewer.
  const { scale: factor = 1 / Math.sqrt(width), softcap = null } = options;
  const keepsProbabilities = k.dim(2) <= PROBABILITIES_KEPT_MAX;
  return singleOutputOp(q.device, {
    name: 'attention',
    inputs: [q, k, v],
    run: () => {
      const weights = probabilities(p, p.reshape(q, grouped), p.scale(k, factor), { mask, softcap, shape: q.shape });
      const output = p.reshape(p.batchMatMul(weights, v), q.shape);
      return { outputs: [output], save: [q, k, v, output, ...(keepsProbabilities ? [weights] : mask ? [mask] : [])] };
    },
    backward: ({ gradients: [g], saved: [query, key, value, output, weightsOrMask] }) => {
      if (!g || !query || !key || !value || !output) return [null, null, null];
      const queries = p.reshape(query, grouped);
      const keys = p.scale(key, factor);
      const weights = keepsProbabilities && weightsOrMask ? weightsOrMask : probabilities(p, queries, keys, { mask: weightsOrMask ?? null, softcap, shape: q.shape }); // [B, K, G*T, S]
      const dOut = p.reshape(g, grouped);
      const dValue = p.batchMatMul(weights, dOut, true, false);
      // Row sums of dP * P equal row sums of dO * O, which are far smaller.
      const product = p.cast(p.mul(dOut, p.reshape(output, grouped)), 'f32');
      const delta = p.cast(p.reduce('sum', product, [3], true), q.dtype); // [B, K, G*T, 1]
      const dWeights = p.batchMatMul(dOut, value, false, true); // [B, K, G*T, S]
      const dCapped = multiplyShifted(p, weights, dWeights, delta);
      const dScores = softcap === null ? dCapped : p.mul(dCapped, capSlope(p, queries, keys, softcap));
      const dQuery = p.reshape(p.batchMatMul(dScores, keys), q.shape);
      return [dQuery, p.scale(p.batchMatMul(dScores, queries, true, false), factor), dValue];
    },
  });
}

/** softmax(cap(q kᵀ) + mask) as [B, K, G*T, S], frees what it makes on the way: these are the largest tensors of a layer. */
function probabilities(
  p: Primitives,
  q: Tensor,
  scaledKeys: Tensor,
  { mask, softcap, shape }: { readonly mask: Tensor | null; readonly softcap: number | null; readonly shape: readonly number[] },
): Tensor {
  const [batch = 1, heads = 1, time = 1] = shape;
  using raw = p.batchMatMul(q, scaledKeys, false, true);
  using plain = p.cast(raw, 'f32');
  raw.dispose();
  using scores = softcap === null ? p.reshape(plain, plain.shape) : bent(p, plain, softcap);
  plain.dispose();
  using perHead = p.reshape(scores, [batch, heads, time, scaledKeys.dim(2)]);
  scores.dispose();
  using masked = mask ? p.add(perHead, mask) : p.reshape(perHead, perHead.shape);
  perHead.dispose();
  using softmax = p.softmax(masked);
  masked.dispose();
  using typed = p.cast(softmax, q.dtype);
  return p.reshape(typed, raw.shape);
}

/** What the cap does to the gradient of the scores, in the dtype of `q`. */
function capSlope(p: Primitives, q: Tensor, scaledKeys: Tensor, softcap: number): Tensor {
  using raw = p.batchMatMul(q, scaledKeys, false, true);
  using scores = p.cast(raw, 'f32');
  raw.dispose();
  using capped = bent(p, scores, softcap);
  scores.dispose();
  using slope = slopeAt(p, capped, softcap);
  return p.cast(slope, q.dtype);
}

/** weights * (dWeights - delta). */
function multiplyShifted(p: Primitives, weights: Tensor, dWeights: Tensor, delta: Tensor): Tensor {
  using shifted = p.sub(dWeights, delta);
  dWeights.dispose();
  return p.mul(weights, shifted);
}
