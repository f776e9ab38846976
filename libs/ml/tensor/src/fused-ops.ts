import type { Raw } from './backend';

/** A matrix of two weights per byte with one factor per block of weights; see `QuantisedWeights`. */
export interface RawQuantisedWeights {
  readonly packed: Raw;
  readonly table: Raw;
  readonly scales: { readonly values: Raw } | { readonly codes: Raw; readonly map: Raw; readonly maxima: Raw; readonly offset: number; readonly blockSize: number };
  readonly blockSize: number;
  readonly outSize: number;
  readonly inSize: number;
}

/**
 * Ops that do at once what the ops of `Backend` do in several, with every intermediate result in registers instead of in memory. All compute in f32 and want
 * f32 unless said otherwise. A backend need not have them: whoever uses one composes the same of the others where it is missing.
 */
export interface FusedOps {
  /**
   * x Wᵀ, or norm(x) Wᵀ, and what is added. Each row of the result is the same bits whatever rows are beside it.
   * @param x [N, in]   @param weight [out, in] f32 or bf16   @returns [N, out]
   */
  linear(x: Raw, weight: Raw, additions: Additions<Raw>, norm?: RowNorm<Raw> | null): Raw;
  /** silu(n Gᵀ) * (n Uᵀ), n = x or norm(x). @param gate [out, in] f32 or bf16   @param up alike   @returns [N, out] */
  gatedLinear(x: Raw, gate: Raw, up: Raw, norm: RowNorm<Raw> | null): Raw;
  /** As `linear` for any number of rows, or with `turned` x W and what is added. Null where the backend's own products are faster. @param weight [out, in], or turned [in, out], f32 or bf16 */
  readonly product: ((x: Raw, weight: Raw, turned: boolean, additions: Additions<Raw>) => Raw) | null;
  /** As `linear`, from weights that are dequantised a few rows at a time. */
  linearFourBit(x: Raw, weights: RawQuantisedWeights, additions: Additions<Raw>, norm?: RowNorm<Raw> | null): Raw;
  /** As `gatedLinear`. @param up of the sizes and the kind of scales that `gate` has */
  gatedLinearFourBit(x: Raw, gate: RawQuantisedWeights, up: RawQuantisedWeights, norm: RowNorm<Raw> | null): Raw;
  /** [out, in] */
  dequantise(weights: RawQuantisedWeights): Raw;
  /** @param x [.., C]   @param weight [C]   @returns as `x`, and the inverse root mean squares [.., 1] */
  rmsNorm(x: Raw, weight: Raw, epsilon: number): readonly [y: Raw, inverse: Raw];
  rmsNormGradient(g: Raw, x: Raw, weight: Raw, inverse: Raw): Raw;
  /** @param logits [N, V]   @param labels [N] i32   @returns -log softmax(logits)[label] [N]; 1 where no token is likelier, else 0 [N]; softmax - onehot [N, V] */
  crossEntropy(logits: Raw, labels: Raw): readonly [losses: Raw, likeliest: Raw, gradient: Raw];
  /** silu(gate) * up */
  swiglu(gate: Raw, up: Raw): Raw;
  swigluGradient(g: Raw, gate: Raw, up: Raw): readonly [dGate: Raw, dUp: Raw];
  /**
   * Heads of queries and keys rotated to their positions, and of values.
   * @param x [B*T, (H + 2K) * D]   @param cosine [T, D] or [B, 1, T, D]   @param sine alike, negative in the first half
   * @returns [B, H, T, D] and twice [B, K, T, D]
   */
  rotaryHeads(x: Raw, sizes: HeadSizes, cosine: Raw, sine: Raw): readonly [q: Raw, k: Raw, v: Raw];
  rotaryHeadsGradient(dq: Raw, dk: Raw, dv: Raw, cosine: Raw, sine: Raw): Raw;
  /** The rotation alone, or its transpose. @param x [B, H, T, D] */
  rope(x: Raw, cosine: Raw, sine: Raw, back: boolean): Raw;
  /**
   * Softmax attention without scores in memory; zeros for a query that sees no key.
   * @param q [B, H, T, D]   @param k [B, K, S, D]   @param v alike   @param visible i32 [B or 1, T or 1, ranges, 2], see `AttentionMask`; null: every query sees every key
   * @returns as `q`, and log sum exp of the scores [B, H, T]
   */
  attention(q: Raw, k: Raw, v: Raw, visible: Raw | null, scoring: Scoring): readonly [y: Raw, logSums: Raw];
  attentionGradient(g: Raw, forward: AttentionPass<Raw>, scoring: Scoring): readonly [dq: Raw, dk: Raw, dv: Raw];
  /** @param q [B, H, 1, D]   @param k [B, K, S, D]   @param v alike   @param mask added to scores, S numbers or B rows of them   @returns [B, H * D] */
  singleQueryAttention(q: Raw, k: Raw, v: Raw, mask: Raw | null, scoring: Scoring): Raw;
  /**
   * `rotaryHeads` of one token per row, its key and value written into the cache in place, and `singleQueryAttention`.
   * @param x [B, (H + 2K) * D]   @param cosine [1, D] or [B, 1, 1, D]   @param sine alike   @returns [B, H * D]
   */
  cachedAttention(x: Raw, cosine: Raw, sine: Raw, cache: CacheSlots<Raw>, mask: Raw | null, scoring: Scoring): Raw;
}

/** A root-mean-square norm of rows. */
export interface RowNorm<T> {
  /** [C] */
  readonly weight: T;
  readonly epsilon: number;
}

/** Keys and values of all tokens, with room for more. */
export interface CacheSlots<T> {
  /** [B, K, slots, D] */
  readonly k: T;
  readonly v: T;
  /** Where a new token's keys and values go: rows of [B * K * slots, D], one for each of its K heads, [B * K] i32. */
  readonly places: T;
}

/** Scores are factor times product, bent to softcap * tanh(score / softcap) where there is one. */
export interface Scoring {
  readonly scale: number;
  readonly softcap: number | null;
}

/** What attention had and gave. */
export interface AttentionPass<T> {
  readonly q: T;
  readonly k: T;
  readonly v: T;
  readonly visible: T | null;
  readonly y: T;
  readonly logSums: T;
}

/** What is added to a product. */
export interface Additions<T> {
  /** [out] */
  readonly bias?: T | null;
  /** [N, out] */
  readonly residual?: T | null;
  /** narrow [N, R] times update [R, out]. */
  readonly lowRank?: { readonly narrow: T; readonly update: T } | null;
}

export interface HeadSizes {
  readonly batch: number;
  readonly heads: number;
  readonly keyValueHeads: number;
}
