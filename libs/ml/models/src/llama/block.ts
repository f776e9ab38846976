import { projectGroup, projectOnto, type ProjectionGroup, type ProjectionHook } from '@tunefleet/ml-nn';
import { attention, mergeHeads, rmsNorm, rope, splitAxis, splitHeads, swiglu, type Tensor } from '@tunefleet/ml-tensor';
import type { LayeredCache } from '../decoder/layered-cache';
import type { SequenceContext } from '../decoder/sequence-tables';
import type { LlamaConfig } from './spec';

/** Weights of one block, in the compute dtype. */
export interface LlamaBlock {
  readonly layer: number;
  /** [C] */
  readonly inputNorm: Tensor;
  /** [C] */
  readonly postNorm: Tensor;
  /** q, k and v in one map. */
  readonly qkv: ProjectionGroup;
  readonly o: ProjectionGroup;
  /** gate and up, a map each. */
  readonly gateUp: ProjectionGroup;
  readonly down: ProjectionGroup;
}

export interface BlockContext {
  readonly config: LlamaConfig;
  readonly rows: number;
  readonly sequence: SequenceContext;
  readonly adapter: ProjectionHook | null;
  readonly cache: LayeredCache | null;
}

/**
 * One decoder block: x + attention(norm(x)), then x + mlp(norm(x)).
 * @param x [B*T, C], borrowed
 * @returns [B*T, C], the caller's
 */
export function runBlock(block: LlamaBlock, x: Tensor, context: BlockContext): Tensor {
  return x.device.scope(() => mlp(block, selfAttention(block, x, context), context));
}

/** x + attention(norm(x)) */
function selfAttention(block: LlamaBlock, x: Tensor, { config, rows, sequence, adapter, cache }: BlockContext): Tensor {
  const { num_attention_heads: H, num_key_value_heads: K, rms_norm_eps: epsilon } = config;
  return x.device.scope(() => {
    const [qkv] = projectGroup(rmsNorm(x, block.inputNorm, epsilon), block.qkv, adapter) as [Tensor];
    const [qk, v] = splitHeads(qkv, rows, [H + K, K]) as [Tensor, Tensor]; // [B, heads, T, D]
    const [q, k] = splitAxis(rope(qk, sequence.rope), [H, K], 1) as [Tensor, Tensor];
    const seen = cache ? cache.append(block.layer, k, v) : { k, v };
    return projectOnto(x, mergeHeads(attention(q, seen.k, seen.v, sequence.mask)), block.o, adapter);
  });
}

/** x + mlp(norm(x)) */
function mlp(block: LlamaBlock, x: Tensor, { config, adapter }: BlockContext): Tensor {
  return x.device.scope(() => {
    const [gate, up] = projectGroup(rmsNorm(x, block.postNorm, config.rms_norm_eps), block.gateUp, adapter) as [Tensor, Tensor];
    return projectOnto(x, swiglu(gate, up), block.down, adapter);
  });
}
