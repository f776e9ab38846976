import { projectGroup, projectOnto, type ProjectionGroup } from '@tunefleet/ml-nn';
import { attention, geluTanh, layerNorm, mergeHeads, selectRows, splitHeads, type Tensor } from '@tunefleet/ml-tensor';
import type { BlockContext } from '../decoder/model';

/** Of a layer norm, [C] each. */
export interface LayerNormWeights {
  readonly weight: Tensor;
  readonly bias: Tensor;
}

/** Weights and settings of one block. */
export interface Gpt2Block {
  readonly layer: number;
  readonly heads: number;
  readonly attentionScale: number;
  readonly normEpsilon: number;
  readonly attentionNorm: LayerNormWeights;
  readonly qkv: ProjectionGroup;
  readonly output: ProjectionGroup;
  readonly mlpNorm: LayerNormWeights;
  readonly up: ProjectionGroup;
  readonly down: ProjectionGroup;
}

/**
 * One block: x + attention(norm(x)), then x + mlp(norm(x)).
 * @param x [B*T, C], borrowed
 * @returns [B*T, C], or the wanted rows of it, the caller's
 */
export function runGpt2Block(block: Gpt2Block, x: Tensor, context: BlockContext): Tensor {
  return x.device.scope(() => mlp(block, selfAttention(block, x, context), context));
}

function selfAttention(block: Gpt2Block, x: Tensor, { rows, sequence, adapter, cache, outputRows }: BlockContext): Tensor {
  const { heads: H, attentionScale: scale } = block;
  const wanted = (all: Tensor): Tensor => (outputRows ? selectRows(all, outputRows) : all);
  return x.device.scope(() => {
    const [qkv] = projectGroup(normed(x, block.attentionNorm, block), block.qkv, adapter) as [Tensor];
    const [q, k, v] = splitHeads(qkv, rows, [H, H, H]) as [Tensor, Tensor, Tensor]; // [B, H, T, D]
    const seen = cache ? cache.append(block.layer, k, v) : { k, v };
    const values = mergeHeads(attention(q, seen.k, seen.v, sequence.mask, { scale }));
    return projectOnto(wanted(x), wanted(values), block.output, adapter);
  });
}

function mlp(block: Gpt2Block, x: Tensor, { adapter }: BlockContext): Tensor {
  return x.device.scope(() => {
    const [up] = projectGroup(normed(x, block.mlpNorm, block), block.up, adapter) as [Tensor];
    return projectOnto(x, geluTanh(up), block.down, adapter);
  });
}

function normed(x: Tensor, { weight, bias }: LayerNormWeights, { normEpsilon }: Gpt2Block): Tensor {
  return layerNorm(x, weight, bias, normEpsilon);
}
