import { invariant } from '@tunefleet/foundation';
import type { Scoring } from '../../fused-ops';
import { isFused } from '../../fused-primitives';
import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { bent, slopeAt } from '../softcap/softcap';
import type { BlockMask, MaskedBlock } from './block-mask';
import { flashAttention } from './flash-attention';
import type { KeyRange } from './masks';
import { keepsProbabilities, keysIn } from './query-blocks';

export interface AttentionOptions {
  /** Factor of the scores; default: 1 / sqrt(D). */
  readonly scale?: number;
  /** Scores are bent to softcap * tanh(score / softcap), before the mask comes in. */
  readonly softcap?: number | null;
}

/**
 * Softmax attention with grouped key/value heads; query head h uses key/value head floor(h / (H / K)). Scores are computed of keys that are seen only, and again in the
 * backward pass. Rows padded on the right need no mask of their own: under a causal mask no real token sees them. Every query must see a key.
 * @param q [B, H, T, D]   @param k [B, K, S, D]   @param v [B, K, S, D]
 * @param mask made for the dtype of `q`; null: every query sees every key
 * @returns [B, H, T, D] in the dtype of `q`; softmax in f32
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask | null, options: AttentionOptions = {}): Tensor {
  const [, , time = 1, width = 1] = q.shape;
  invariant(!mask || (mask.keys === k.dim(2) && (mask.queries === time || mask.queries === 1)), `a mask of ${mask?.queries} queries and ${mask?.keys} keys for ${time} and ${k.dim(2)}`);
  const { scale = 1 / Math.sqrt(width), softcap = null } = options;
  if (isFused(q) && (!mask || mask.visible)) return flashAttention(q, k, v, mask?.visible ?? null, { scale, softcap });
  invariant(!mask || !mask.visible, `a mask that was made for f32 is given to attention of ${q.dtype}`);
  return attentionByBlocks(q, k, v, mask, { scale, softcap });
}

/**
 * Attention block by block of queries, in ops of its own for every product and sum. Keeps q, k, v and its output; the probabilities too where they are not larger than
 * what a block of a model keeps anyway, else they are computed again in the backward pass.
 */
function attentionByBlocks(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask | null, { scale, softcap }: Scoring): Tensor {
  const p = q.device.primitives;
  const [, heads = 1, time = 1, width = 1] = q.shape;
  const blocks = blocksOf(mask, time, k.dim(2));
  const masked = blocks.filter((block) => block.mask !== null);
  const layout: Layout = { heads, groups: k.dim(1), width };
  const keeps = keepsProbabilities(blocks, time);
  return singleOutputOp(q.device, {
    name: 'attention',
    inputs: [q, k, v],
    run: () => {
      // The keys, of which there are fewer.
      using scaled = p.scale(k, scale);
      const kept: Tensor[] = [];
      const outputs = blocks.map((block) => {
        using queries = queriesOf(p, q, block, layout);
        using keys = keysOf(p, scaled, block.keys);
        using values = keysOf(p, v, block.keys);
        const weights = probabilities(p, queries, keys, { mask: block.mask, softcap, layout });
        using output = p.batchMatMul(weights, values);
        if (keeps) kept.push(weights);
        else weights.dispose();
        return ungrouped(p, output, layout);
      });
      const output = joined(p, outputs);
      return { outputs: [output], save: [q, k, v, output, ...(keeps ? kept : masked.map((block) => block.mask as Tensor))] };
    },
    backward: ({ gradients: [g], saved: [query, key, value, output, ...rest] }) => {
      if (!g || !query || !key || !value || !output) return [null, null, null];
      using scaled = p.scale(key, scale);
      const parts = { query: [] as Tensor[], key: [] as PlacedKeys[], value: [] as PlacedKeys[] };
      for (const [index, block] of blocks.entries()) {
        using queries = queriesOf(p, query, block, layout);
        using keys = keysOf(p, scaled, block.keys);
        using values = keysOf(p, value, block.keys);
        using dOut = queriesOf(p, g, block, layout);
        using out = queriesOf(p, output, block, layout);
        using weights = keeps ? p.reshape(rest[index] as Tensor, (rest[index] as Tensor).shape) : probabilities(p, queries, keys, { mask: rest[masked.indexOf(block)] ?? null, softcap, layout }); // [B, K, G*t, s]
        parts.value.push({ ranges: block.keys, values: p.batchMatMul(weights, dOut, true, false) });
        // Row sums of dP * P equal row sums of dO * O, which are far smaller.
        using product = p.mul(dOut, out);
        using exact = p.cast(product, 'f32');
        using delta = p.reduce('sum', exact, [3], true);
        using shift = p.cast(delta, query.dtype); // [B, K, G*t, 1]
        const dWeights = p.batchMatMul(dOut, values, false, true); // [B, K, G*t, s]
        using dCapped = multiplyShifted(p, weights, dWeights, shift);
        using dScores = softcap === null ? p.reshape(dCapped, dCapped.shape) : bySlope(p, dCapped, queries, keys, softcap);
        using dQuery = p.batchMatMul(dScores, keys);
        parts.query.push(ungrouped(p, dQuery, layout));
        parts.key.push({ ranges: block.keys, values: p.batchMatMul(dScores, queries, true, false) });
      }
      using dKey = placed(p, parts.key, key);
      return [joined(p, parts.query), p.scale(dKey, scale), placed(p, parts.value, value)];
    },
  });
}

interface Layout {
  readonly heads: number;
  readonly groups: number;
  readonly width: number;
}

/** Gradients of the keys of some ranges, one behind the other: [B, K, s, D]. */
interface PlacedKeys {
  readonly ranges: readonly KeyRange[];
  readonly values: Tensor;
}

/** A mask for one query is for all of them, which are one block then. */
function blocksOf(mask: BlockMask | null, queries: number, keys: number): readonly MaskedBlock[] {
  if (mask && mask.queries === queries) return mask.blocks;
  const whole = { from: 0, to: queries, keys: [[0, keys]] as const, mask: null };
  return mask ? mask.blocks.map((block) => ({ ...block, to: queries })) : [whole];
}

/** A block's rows of [B, H, T, D] as [B, K, G*t, D]. */
function queriesOf(p: Primitives, x: Tensor, { from, to }: MaskedBlock, { heads, groups, width }: Layout): Tensor {
  const [batch = 1, , time = 1] = x.shape;
  const grouped = [batch, groups, (heads / groups) * (to - from), width];
  if (from === 0 && to === time) return p.reshape(x, grouped);
  using part = p.slice(x, [0, 0, from, 0], [batch, heads, to - from, width]);
  return p.reshape(part, grouped);
}

/** [B, K, G*t, D] as [B, H, t, D] */
function ungrouped(p: Primitives, x: Tensor, { heads, groups, width }: Layout): Tensor {
  return p.reshape(x, [x.dim(0), heads, (x.dim(2) * groups) / heads, width]);
}

/** Some ranges of [B, K, S, D], one behind the other. */
function keysOf(p: Primitives, x: Tensor, ranges: readonly KeyRange[]): Tensor {
  const [batch = 1, groups = 1, keys = 1, width = 1] = x.shape;
  if (keysIn(ranges) === keys) return p.reshape(x, x.shape);
  return joined(p, ranges.map(([start, end]) => p.slice(x, [0, 0, start, 0], [batch, groups, end - start, width])));
}

/** Parts one behind the other along the third axis; takes the parts. */
function joined(p: Primitives, parts: readonly Tensor[]): Tensor {
  const [only] = parts;
  if (only && parts.length === 1) return only;
  const whole = p.concat(parts, 2);
  for (const part of parts) part.dispose();
  return whole;
}

/** The sum of what the blocks say of each key, in the shape of `x`; takes the parts. */
function placed(p: Primitives, parts: readonly PlacedKeys[], x: Tensor): Tensor {
  const whole = parts.map(({ ranges, values }) => {
    const spread = spreadOut(p, values, ranges, x);
    if (spread !== values) values.dispose();
    return spread;
  });
  const [only] = whole;
  if (only && whole.length === 1) return only;
  const sum = p.addAll(whole);
  for (const part of whole) part.dispose();
  return sum;
}

/** Zeros where the ranges leave keys out. @returns `values` itself where they leave out none */
function spreadOut(p: Primitives, values: Tensor, ranges: readonly KeyRange[], x: Tensor): Tensor {
  const [batch = 1, groups = 1, keys = 1, width = 1] = x.shape;
  if (keysIn(ranges) === keys) return values;
  const pieces: Tensor[] = [];
  let at = 0;
  let taken = 0;
  for (const [start, end] of [...ranges, [keys, keys] as const]) {
    if (start > at) pieces.push(p.zeros([batch, groups, start - at, width], x.dtype as 'f32' | 'bf16'));
    if (end > start) pieces.push(p.slice(values, [0, 0, taken, 0], [batch, groups, end - start, width]));
    [at, taken] = [end, taken + end - start];
  }
  return joined(p, pieces);
}

/** softmax(cap(q kᵀ) + mask) as [B, K, G*t, s], frees what it makes on the way: these are the largest tensors of a layer. */
function probabilities(
  p: Primitives,
  q: Tensor,
  scaledKeys: Tensor,
  { mask, softcap, layout }: { readonly mask: Tensor | null; readonly softcap: number | null; readonly layout: Layout },
): Tensor {
  using raw = p.batchMatMul(q, scaledKeys, false, true);
  using plain = p.cast(raw, 'f32');
  raw.dispose();
  using scores = softcap === null ? p.reshape(plain, plain.shape) : bent(p, plain, softcap);
  plain.dispose();
  using perHead = p.reshape(scores, [q.dim(0), layout.heads, (q.dim(2) * layout.groups) / layout.heads, scaledKeys.dim(2)]);
  scores.dispose();
  using masked = mask ? p.add(perHead, mask) : p.reshape(perHead, perHead.shape);
  perHead.dispose();
  using softmax = p.softmax(masked);
  masked.dispose();
  using typed = p.cast(softmax, q.dtype);
  return p.reshape(typed, raw.shape);
}

/** What the cap makes of the gradient of the scores, in the dtype of `q`. */
function bySlope(p: Primitives, dCapped: Tensor, q: Tensor, scaledKeys: Tensor, softcap: number): Tensor {
  using raw = p.batchMatMul(q, scaledKeys, false, true);
  using scores = p.cast(raw, 'f32');
  raw.dispose();
  using capped = bent(p, scores, softcap);
  scores.dispose();
  using slope = slopeAt(p, capped, softcap);
  using typed = p.cast(slope, q.dtype);
  return p.mul(dCapped, typed);
}

/** weights * (dWeights - delta); takes `dWeights`. */
function multiplyShifted(p: Primitives, weights: Tensor, dWeights: Tensor, delta: Tensor): Tensor {
  using shifted = p.sub(dWeights, delta);
  dWeights.dispose();
  return p.mul(weights, shifted);
}
