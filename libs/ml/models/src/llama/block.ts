import { project, type Projection, type ProjectionHook } from '@tunefleet/ml-nn';
import { add, attention, mergeHeads, rmsNorm, rope, splitHeads, swiglu, type Tensor } from '@tunefleet/ml-tensor';
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
  readonly q: Projection;
  readonly k: Projection;
  readonly v: Projection;
  readonly o: Projection;
  readonly gate: Projection;
  readonly up: Projection;
  readonly down: Projection;
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
  return x.device.scope(() => {
    const middle = add(x, selfAttention(block, x, context));
    return add(middle, mlp(block, middle, context));
  });
}

function selfAttention(block: LlamaBlock, x: Tensor, { config, rows, sequence, adapter, cache }: BlockContext): Tensor {
  const { num_attention_heads: H, num_key_value_heads: K, rms_norm_eps: epsilon } = config;
  return x.device.scope(() => {
    const normed = rmsNorm(x, block.inputNorm, epsilon);
    const q = rope(splitHeads(project(normed, block.q, adapter), rows, H), sequence.rope); // [B, H, T, D]
    const k = rope(splitHeads(project(normed, block.k, adapter), rows, K), sequence.rope); // [B, K, T, D]
    const v = splitHeads(project(normed, block.v, adapter), rows, K); // [B, K, T, D]
    const seen = cache ? cache.append(block.layer, k, v) : { k, v };
    return project(mergeHeads(attention(q, seen.k, seen.v, sequence.mask)), block.o, adapter);
  });
}

function mlp(block: LlamaBlock, x: Tensor, { config, adapter }: BlockContext): Tensor {
  return x.device.scope(() => {
    const normed = rmsNorm(x, block.postNorm, config.rms_norm_eps);
    const gate = project(normed, block.gate, adapter);
    const up = project(normed, block.up, adapter);
    return project(swiglu(gate, up), block.down, adapter);
  });
}
