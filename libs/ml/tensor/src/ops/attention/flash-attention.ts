import type { Scoring } from '../../fused-ops';
import type { FusedPrimitives } from '../../fused-primitives';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

/**
 * `attention` as one op forwards and one backwards. Keeps q, k, v, its output and a number per query and head; no scores.
 * @param visible i32 [B or 1, T or 1, ranges, 2]; null: every query sees every key
 * @see Dao 2023, arXiv:2307.08691
 */
export function flashAttention(q: Tensor & { readonly device: { readonly fused: FusedPrimitives } }, k: Tensor, v: Tensor, visible: Tensor | null, scoring: Scoring): Tensor {
  const { fused } = q.device;
  return singleOutputOp(q.device, {
    name: 'attention',
    inputs: [q, k, v],
    run: () => {
      const [y, logSums] = fused.attention(q, k, v, visible, scoring);
      return { outputs: [y], save: [q, k, v, y, logSums, ...(visible ? [visible] : [])] };
    },
    backward: ({ gradients: [g], saved: [query, key, value, y, logSums, ranges = null] }) => {
      if (!g || !query || !key || !value || !y || !logSums) return [null, null, null];
      return fused.attentionGradient(g, { q: query, k: key, v: value, visible: ranges, y, logSums }, scoring);
    },
  });
}
