import { invariant } from '@tunefleet/foundation';
import type { CacheSlots } from '../../fused-ops';
import { isFused } from '../../fused-primitives';
import type { Tensor } from '../../tensor';
import type { PositionTables, RopeTables } from '../rope/rope';
import { bent } from '../softcap/softcap';
import type { AttentionOptions } from './attention';
import { MASKED } from './masks';

/**
 * Which slots of a cache each row's one query sees: those behind `lengths[b]` earlier tokens and its own, at most `window` of them.
 * @returns [B, slots] f32, to be added to scores, or [1, slots] where all rows are alike; null: all slots are seen
 */
export function slotMask(lengths: Int32Array, slots: number, window = Infinity): Float32Array | null {
  const alike = lengths.every((length) => length === lengths[0]);
  const rows = alike ? lengths.subarray(0, 1) : lengths;
  const mask = new Float32Array(rows.length * slots);
  rows.forEach((length, row) => {
    mask.fill(MASKED, row * slots, row * slots + Math.max(0, length + 1 - window));
    mask.fill(MASKED, row * slots + length + 1, (row + 1) * slots);
  });
  return mask.some((value) => value !== 0) ? mask : null;
}

/**
 * Attention of one new token per row over cached keys. As `attention`, in fewer ops and without a gradient.
 * @param q [B, H, 1, D]   @param k [B, K, S, D]   @param v alike
 * @param mask added to the scores, [B or 1, 1, 1, S] f32; null: every key is seen
 * @returns [B, H * D], the caller's
 */
export function singleQueryAttention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, { scale, softcap = null }: AttentionOptions = {}): Tensor {
  const { device } = q;
  const p = device.primitives;
  const [batch = 1, heads = 1, time = 1, width = 1] = q.shape;
  invariant(time === 1 && !device.tape, 'attention of a single query has one token per row and no gradient');
  if (isFused(q)) return q.device.fused.singleQueryAttention(q, k, v, mask, { scale: scale ?? 1 / Math.sqrt(width), softcap });
  return device.scope(() => {
    const queries = p.scale(p.reshape(q, [batch, k.dim(1), heads / k.dim(1), width]), scale ?? 1 / Math.sqrt(width)); // [B, K, G, D]
    const raw = p.cast(p.batchMatMul(queries, k, false, true), 'f32'); // [B, K, G, S]
    const scores = softcap === null ? raw : bent(p, raw, softcap);
    const weights = p.cast(p.softmax(mask ? p.add(scores, mask) : scores), q.dtype);
    return p.reshape(p.batchMatMul(weights, v), [batch, heads * width]);
  });
}

/** Whether `cachedAttention` can be had for such heads. */
export function canAttendInCache(x: Tensor, tables: RopeTables): tables is PositionTables {
  return isFused(x) && !x.device.tape && !('rotation' in tables);
}

/**
 * `rotaryHeads` of one token per row, its key and value written into the cache, and `singleQueryAttention`, in one op and without a gradient.
 * @param x [B, (H + 2K) * D]   @param mask as there
 * @returns [B, H * D], the caller's
 */
export function cachedAttention(x: Tensor, tables: PositionTables, cache: CacheSlots<Tensor>, mask: Tensor | null, { scale, softcap = null }: AttentionOptions = {}): Tensor {
  invariant(isFused(x) && canAttendInCache(x, tables), 'attention in the cache has no gradient and wants a device with an op for it');
  return x.device.fused.cachedAttention(x, tables.cos, tables.sin, cache, mask, { scale: scale ?? 1 / Math.sqrt(cache.k.dim(3)), softcap });
}
