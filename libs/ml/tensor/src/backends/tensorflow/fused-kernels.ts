import type { Raw } from '../../backend';
import type { Additions, AttentionPass, CacheSlots, FusedOps, HeadSizes, RawQuantisedWeights, RowNorm, Scoring } from '../../fused-ops';
import { TF, type OpAttribute } from './binding';

/** How the backend runs an op by name. */
export interface OpRunner {
  run(name: string, attributes: readonly OpAttribute[], inputs: readonly number[], outputs: number): readonly Raw[];
  type(name: string, value: number): OpAttribute;
  int(name: string, value: number): OpAttribute;
  float(name: string, value: number): OpAttribute;
}

/** The ops of `libs/ml/tensor/kernels`, which are compiled into the addon. Processor only. */
export class FusedKernels implements FusedOps {
  private constructor(private readonly runner: OpRunner) {}

  /** @param probe any f32 buffer   @returns null where this processor lacks the kernels' instructions, so that they are not registered */
  static open(runner: OpRunner, probe: Raw, free: (x: Raw) => void): FusedKernels | null {
    const kernels = new FusedKernels(runner);
    try {
      free(kernels.swiglu(probe, probe));
      return kernels;
    } catch {
      return null;
    }
  }

  linear(x: Raw, weight: Raw, additions: Additions<Raw>, norm: RowNorm<Raw> | null = null): Raw {
    return this.one('TunefleetLinear', [this.runner.type('T', TF[weight.dtype]), ...this.counts(additions), ...this.norming(norm)], [x, weight, ...added(additions), norm?.weight ?? null]);
  }

  gatedLinear(x: Raw, gate: Raw, up: Raw, norm: RowNorm<Raw> | null): Raw {
    return this.one('TunefleetGatedLinear', [this.runner.type('T', TF[gate.dtype]), ...this.norming(norm)], [x, gate, up, norm?.weight ?? null]);
  }

  product(x: Raw, weight: Raw, turned: boolean, additions: Additions<Raw>): Raw {
    return this.one('TunefleetManyRows', [this.runner.type('T', TF[weight.dtype]), this.runner.int('turned', turned ? 1 : 0), ...this.counts(additions)], [x, weight, ...added(additions)]);
  }

  linearFourBit(x: Raw, weights: RawQuantisedWeights, additions: Additions<Raw>, norm: RowNorm<Raw> | null = null): Raw {
    return this.one('TunefleetLinearFourBit', [...this.quantisation(weights), ...this.counts(additions), ...this.norming(norm)], [x, ...partsOf(weights), ...added(additions), norm?.weight ?? null]);
  }

  gatedLinearFourBit(x: Raw, gate: RawQuantisedWeights, up: RawQuantisedWeights, norm: RowNorm<Raw> | null): Raw {
    return this.one('TunefleetGatedLinearFourBit', [...this.quantisation(gate), this.runner.float('up_scale_offset', offsetOf(up)), ...this.norming(norm)], [x, ...partsOf(gate), ...partsOf(up), norm?.weight ?? null]);
  }

  dequantise(weights: RawQuantisedWeights): Raw {
    return this.one('TunefleetDequantise', [...this.quantisation(weights), this.runner.int('in', weights.inSize)], partsOf(weights));
  }

  rmsNorm(x: Raw, weight: Raw, epsilon: number): readonly [Raw, Raw] {
    return this.all('TunefleetRmsNorm', [this.runner.float('epsilon', epsilon)], [x, weight], 2) as [Raw, Raw];
  }

  rmsNormGradient(g: Raw, x: Raw, weight: Raw, inverse: Raw): Raw {
    return this.one('TunefleetRmsNormGradient', [], [g, x, weight, inverse]);
  }

  crossEntropy(logits: Raw, labels: Raw): readonly [Raw, Raw, Raw] {
    return this.all('TunefleetCrossEntropy', [], [logits, labels], 3) as [Raw, Raw, Raw];
  }

  swiglu(gate: Raw, up: Raw): Raw {
    return this.one('TunefleetSwiglu', [], [gate, up]);
  }

  swigluGradient(g: Raw, gate: Raw, up: Raw): readonly [Raw, Raw] {
    return this.all('TunefleetSwigluGradient', [], [g, gate, up], 2) as [Raw, Raw];
  }

  rotaryHeads(x: Raw, { batch, heads, keyValueHeads }: HeadSizes, cosine: Raw, sine: Raw): readonly [Raw, Raw, Raw] {
    const { runner } = this;
    const sizes = [runner.int('batch', batch), runner.int('query_heads', heads), runner.int('key_heads', keyValueHeads)];
    return this.all('TunefleetRotaryHeads', sizes, [x, cosine, sine], 3) as [Raw, Raw, Raw];
  }

  rotaryHeadsGradient(dq: Raw, dk: Raw, dv: Raw, cosine: Raw, sine: Raw): Raw {
    return this.one('TunefleetRotaryHeadsGradient', [], [dq, dk, dv, cosine, sine]);
  }

  rope(x: Raw, cosine: Raw, sine: Raw, back: boolean): Raw {
    return this.one('TunefleetRope', [this.runner.int('back', back ? 1 : 0)], [x, cosine, sine]);
  }

  attention(q: Raw, k: Raw, v: Raw, visible: Raw | null, scoring: Scoring): readonly [Raw, Raw] {
    return this.all('TunefleetFlashAttention', this.scoring(scoring, visible), [q, k, v, visible], 2) as [Raw, Raw];
  }

  attentionGradient(g: Raw, { q, k, v, visible, y, logSums }: AttentionPass<Raw>, scoring: Scoring): readonly [Raw, Raw, Raw] {
    return this.all('TunefleetFlashAttentionGradient', this.scoring(scoring, visible), [g, q, k, v, y, logSums, visible], 3) as [Raw, Raw, Raw];
  }

  singleQueryAttention(q: Raw, k: Raw, v: Raw, mask: Raw | null, scoring: Scoring): Raw {
    return this.one('TunefleetSingleQueryAttention', this.scoring(scoring, mask), [q, k, v, mask]);
  }

  cachedAttention(x: Raw, cosine: Raw, sine: Raw, { k, v, places }: CacheSlots<Raw>, mask: Raw | null, scoring: Scoring): Raw {
    return this.one('TunefleetCachedAttention', this.scoring(scoring, mask), [x, cosine, sine, places, k, v, mask]);
  }

  private one(name: string, attributes: readonly OpAttribute[], inputs: readonly (Raw | null)[]): Raw {
    return this.all(name, attributes, inputs, 1)[0] as Raw;
  }

  private all(name: string, attributes: readonly OpAttribute[], inputs: readonly (Raw | null)[], outputs: number): readonly Raw[] {
    return this.runner.run(name, attributes, inputs.flatMap((input) => (input ? [input.id] : [])), outputs);
  }

  private counts({ bias, residual, lowRank }: Additions<Raw>): OpAttribute[] {
    return [this.runner.int('B', bias ? 1 : 0), this.runner.int('R', residual ? 1 : 0), this.runner.int('U', lowRank ? 2 : 0)];
  }

  private norming(norm: RowNorm<Raw> | null): OpAttribute[] {
    return [this.runner.int('N', norm ? 1 : 0), this.runner.float('epsilon', norm?.epsilon ?? 0)];
  }

  private scoring({ scale, softcap }: Scoring, mask: Raw | null): OpAttribute[] {
    return [this.runner.float('scale', scale), this.runner.float('softcap', softcap ?? 0), this.runner.int('M', mask ? 1 : 0)];
  }

  private quantisation(weights: RawQuantisedWeights): OpAttribute[] {
    const { runner } = this;
    const { scales, blockSize, outSize } = weights;
    const plain = 'values' in scales;
    return [
      runner.int('out', outSize),
      runner.int('block_size', blockSize),
      runner.int('scale_block_size', plain ? 1 : scales.blockSize),
      runner.float('scale_offset', offsetOf(weights)),
      runner.int('S', plain ? 1 : 2),
      runner.int('C', plain ? 0 : 1),
    ];
  }
}

function added({ bias = null, residual = null, lowRank }: Additions<Raw>): (Raw | null)[] {
  return [bias, residual, lowRank?.narrow ?? null, lowRank?.update ?? null];
}

function offsetOf({ scales }: RawQuantisedWeights): number {
  return 'values' in scales ? 0 : scales.offset;
}

/** In the order of the op's inputs. */
function partsOf({ packed, table, scales }: RawQuantisedWeights): Raw[] {
  return [packed, table, ...('values' in scales ? [scales.values] : [scales.map, scales.maxima, scales.codes])];
}
