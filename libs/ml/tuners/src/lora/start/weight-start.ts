/** Starts that take part of the base weights over into the adapter. */
export type WeightStart = 'olora' | 'pissa' | `pissa_niter_${number}`;

export function isWeightStart(init: unknown): init is WeightStart {
  return typeof init === 'string' && /^(olora|pissa|pissa_niter_\d+)$/.test(init);
}
