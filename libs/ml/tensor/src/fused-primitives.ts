import type { Raw } from './backend';
import type { Device } from './device';
import type { Additions, AttentionPass, CacheSlots, FusedOps, HeadSizes, RawQuantisedWeights, RowNorm, Scoring } from './fused-ops';
import type { QuantisedWeights } from './ops/linear/quantised-weights';
import type { Tensor } from './tensor';

/** `FusedOps` on `Tensor` handles: eager, no gradients recorded. Results belong to the caller (or the enclosing scope). */
export class FusedPrimitives {
  constructor(
    private readonly device: Device,
    private readonly ops: FusedOps,
  ) {}

  linear(x: Tensor, weight: Tensor, additions: Additions<Tensor> = {}, norm: RowNorm<Tensor> | null = null): Tensor {
    return this.device.adopt(this.ops.linear(x.raw, weight.raw, rawAdditions(additions), rawNorm(norm)));
  }

  gatedLinear(x: Tensor, gate: Tensor, up: Tensor, norm: RowNorm<Tensor> | null): Tensor {
    return this.device.adopt(this.ops.gatedLinear(x.raw, gate.raw, up.raw, rawNorm(norm)));
  }

  /** Null where there is no such op. */
  product(x: Tensor, weight: Tensor, turned: boolean, additions: Additions<Tensor> = {}): Tensor | null {
    const { product } = this.ops;
    return product && this.device.adopt(product.call(this.ops, x.raw, weight.raw, turned, rawAdditions(additions)));
  }

  linearFourBit(x: Tensor, weights: QuantisedWeights, additions: Additions<Tensor> = {}, norm: RowNorm<Tensor> | null = null): Tensor {
    return this.device.adopt(this.ops.linearFourBit(x.raw, rawOf(weights), rawAdditions(additions), rawNorm(norm)));
  }

  gatedLinearFourBit(x: Tensor, gate: QuantisedWeights, up: QuantisedWeights, norm: RowNorm<Tensor> | null): Tensor {
    return this.device.adopt(this.ops.gatedLinearFourBit(x.raw, rawOf(gate), rawOf(up), rawNorm(norm)));
  }

  dequantise(weights: QuantisedWeights): Tensor {
    return this.device.adopt(this.ops.dequantise(rawOf(weights)));
  }

  rmsNorm(x: Tensor, weight: Tensor, epsilon: number): readonly [y: Tensor, inverse: Tensor] {
    const [y, inverse] = this.ops.rmsNorm(x.raw, weight.raw, epsilon);
    return [this.device.adopt(y), this.device.adopt(inverse)];
  }

  rmsNormGradient(g: Tensor, x: Tensor, weight: Tensor, inverse: Tensor): Tensor {
    return this.device.adopt(this.ops.rmsNormGradient(g.raw, x.raw, weight.raw, inverse.raw));
  }

  crossEntropy(logits: Tensor, labels: Tensor): readonly [losses: Tensor, likeliest: Tensor, gradient: Tensor] {
    const [losses, likeliest, gradient] = this.ops.crossEntropy(logits.raw, labels.raw);
    return [this.device.adopt(losses), this.device.adopt(likeliest), this.device.adopt(gradient)];
  }

  swiglu(gate: Tensor, up: Tensor): Tensor {
    return this.device.adopt(this.ops.swiglu(gate.raw, up.raw));
  }

  swigluGradient(g: Tensor, gate: Tensor, up: Tensor): readonly [dGate: Tensor, dUp: Tensor] {
    const [dGate, dUp] = this.ops.swigluGradient(g.raw, gate.raw, up.raw);
    return [this.device.adopt(dGate), this.device.adopt(dUp)];
  }

  rotaryHeads(x: Tensor, sizes: HeadSizes, cosine: Tensor, sine: Tensor): readonly [q: Tensor, k: Tensor, v: Tensor] {
    const [q, k, v] = this.ops.rotaryHeads(x.raw, sizes, cosine.raw, sine.raw);
    return [this.device.adopt(q), this.device.adopt(k), this.device.adopt(v)];
  }

  rotaryHeadsGradient(dq: Tensor, dk: Tensor, dv: Tensor, cosine: Tensor, sine: Tensor): Tensor {
    return this.device.adopt(this.ops.rotaryHeadsGradient(dq.raw, dk.raw, dv.raw, cosine.raw, sine.raw));
  }

  rope(x: Tensor, cosine: Tensor, sine: Tensor, back: boolean): Tensor {
    return this.device.adopt(this.ops.rope(x.raw, cosine.raw, sine.raw, back));
  }

  attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | null, scoring: Scoring): readonly [y: Tensor, logSums: Tensor] {
    const [y, logSums] = this.ops.attention(q.raw, k.raw, v.raw, visible?.raw ?? null, scoring);
    return [this.device.adopt(y), this.device.adopt(logSums)];
  }

  attentionGradient(g: Tensor, { q, k, v, visible, y, logSums }: AttentionPass<Tensor>, scoring: Scoring): readonly [dq: Tensor, dk: Tensor, dv: Tensor] {
    const [dq, dk, dv] = this.ops.attentionGradient(g.raw, { q: q.raw, k: k.raw, v: v.raw, visible: visible?.raw ?? null, y: y.raw, logSums: logSums.raw }, scoring);
    return [this.device.adopt(dq), this.device.adopt(dk), this.device.adopt(dv)];
  }

  singleQueryAttention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, scoring: Scoring): Tensor {
    return this.device.adopt(this.ops.singleQueryAttention(q.raw, k.raw, v.raw, mask?.raw ?? null, scoring));
  }

  cachedAttention(x: Tensor, cosine: Tensor, sine: Tensor, { k, v, places }: CacheSlots<Tensor>, mask: Tensor | null, scoring: Scoring): Tensor {
    return this.device.adopt(this.ops.cachedAttention(x.raw, cosine.raw, sine.raw, { k: k.raw, v: v.raw, places: places.raw }, mask?.raw ?? null, scoring));
  }
}

/** Whether fused ops may compute with `x`. */
export function isFused(x: Tensor): x is Tensor & { readonly device: { readonly fused: FusedPrimitives } } {
  return x.device.fused !== null && x.dtype === 'f32';
}

function rawNorm(norm: RowNorm<Tensor> | null): RowNorm<Raw> | null {
  return norm && { weight: norm.weight.raw, epsilon: norm.epsilon };
}

function rawAdditions({ bias, residual, lowRank }: Additions<Tensor>): Additions<Raw> {
  return { bias: bias?.raw ?? null, residual: residual?.raw ?? null, lowRank: lowRank ? { narrow: lowRank.narrow.raw, update: lowRank.update.raw } : null };
}

function rawOf({ packed, table, scales, ...rest }: QuantisedWeights): RawQuantisedWeights {
  const { raw } = packed;
  if ('values' in scales) return { ...rest, packed: raw, table: table.raw, scales: { values: scales.values.raw } };
  return { ...rest, packed: raw, table: table.raw, scales: { ...scales, codes: scales.codes.raw, map: scales.map.raw, maxima: scales.maxima.raw } };
}
