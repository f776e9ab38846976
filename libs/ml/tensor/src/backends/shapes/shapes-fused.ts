import type { Raw } from '../../backend';
import type { DType, Shape } from '../../dtype';
import type { AttentionPass, CacheSlots, FusedOps, HeadSizes, RawQuantisedWeights } from '../../fused-ops';

/** The shapes that fused ops give. */
export class ShapesFused implements FusedOps {
  constructor(private readonly make: (shape: Shape, dtype: DType) => Raw) {}

  linear(x: Raw, weight: Raw): Raw {
    return this.make([x.shape[0] as number, weight.shape[0] as number], 'f32');
  }

  gatedLinear(x: Raw, gate: Raw): Raw {
    return this.linear(x, gate);
  }

  product(x: Raw, weight: Raw, turned: boolean): Raw {
    return this.make([x.shape[0] as number, weight.shape[turned ? 1 : 0] as number], 'f32');
  }

  linearFourBit(x: Raw, { outSize }: RawQuantisedWeights): Raw {
    return this.make([x.shape[0] as number, outSize], 'f32');
  }

  gatedLinearFourBit(x: Raw, gate: RawQuantisedWeights): Raw {
    return this.linearFourBit(x, gate);
  }

  dequantise({ outSize, inSize }: RawQuantisedWeights): Raw {
    return this.make([outSize, inSize], 'f32');
  }

  rmsNorm(x: Raw): readonly [Raw, Raw] {
    return [this.like(x), this.make([...x.shape.slice(0, -1), 1], 'f32')];
  }

  rmsNormGradient(_g: Raw, x: Raw): Raw {
    return this.like(x);
  }

  crossEntropy(logits: Raw): readonly [Raw, Raw, Raw] {
    const perRow = (): Raw => this.make(logits.shape.slice(0, 1), 'f32');
    return [perRow(), perRow(), this.like(logits)];
  }

  swiglu(gate: Raw): Raw {
    return this.like(gate);
  }

  swigluGradient(_g: Raw, gate: Raw): readonly [Raw, Raw] {
    return [this.like(gate), this.like(gate)];
  }

  rotaryHeads(x: Raw, { batch, heads, keyValueHeads }: HeadSizes): readonly [Raw, Raw, Raw] {
    const [rows, columns] = x.shape as [number, number];
    const of = (count: number): Raw => this.make([batch, count, rows / batch, columns / (heads + 2 * keyValueHeads)], 'f32');
    return [of(heads), of(keyValueHeads), of(keyValueHeads)];
  }

  rotaryHeadsGradient({ shape: [batch = 0, heads = 0, time = 0, width = 0] }: Raw, dk: Raw): Raw {
    return this.make([batch * time, (heads + 2 * (dk.shape[1] as number)) * width], 'f32');
  }

  rope(x: Raw): Raw {
    return this.like(x);
  }

  attention(q: Raw): readonly [Raw, Raw] {
    return [this.like(q), this.make(q.shape.slice(0, -1), 'f32')];
  }

  attentionGradient(_g: Raw, { q, k, v }: AttentionPass<Raw>): readonly [Raw, Raw, Raw] {
    return [this.like(q), this.like(k), this.like(v)];
  }

  singleQueryAttention({ shape: [batch = 0, heads = 0, , width = 0] }: Raw): Raw {
    return this.make([batch, heads * width], 'f32');
  }

  cachedAttention(x: Raw, _cosine: Raw, _sine: Raw, { k: { shape: [, heads = 0, , width = 0] } }: CacheSlots<Raw>): Raw {
    const [rows, columns] = x.shape as [number, number];
    return this.make([rows, columns - 2 * heads * width], 'f32');
  }

  private like(x: Raw): Raw {
    return this.make(x.shape, 'f32');
  }
}
