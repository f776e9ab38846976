import { normalise, projectGroup, projectOnto, type ModelHook, type Norm, type ProjectionGroup } from '@tunefleet/ml-nn';
import { attention, gelu, mergeHeads, splitHeads, type BlockMask, type Tensor } from '@tunefleet/ml-tensor';

/** Weights of one block. */
export interface BertBlock {
  readonly heads: number;
  /** q, k and v in one map. */
  readonly qkv: ProjectionGroup;
  readonly output: ProjectionGroup;
  readonly attentionNorm: Norm;
  readonly up: ProjectionGroup;
  readonly down: ProjectionGroup;
  readonly mlpNorm: Norm;
}

export interface BertBlockContext {
  readonly rows: number;
  readonly mask: BlockMask;
  readonly adapter: ModelHook | null;
}

/**
 * One block: h = norm(x + attention(x)), then norm(h + mlp(h)).
 * @param x [B*T, C], borrowed
 * @returns [B*T, C], the caller's
 */
export function runBertBlock(block: BertBlock, x: Tensor, { rows, mask, adapter }: BertBlockContext): Tensor {
  const { heads: H } = block;
  return x.device.scope(() => {
    const [qkv] = projectGroup(x, block.qkv, adapter) as [Tensor];
    const [q, k, v] = splitHeads(qkv, rows, [H, H, H]) as [Tensor, Tensor, Tensor]; // [B, H, T, D]
    const attended = normalise(projectOnto(x, mergeHeads(attention(q, k, v, mask)), block.output, adapter), block.attentionNorm, adapter);
    const [up] = projectGroup(attended, block.up, adapter) as [Tensor];
    return normalise(projectOnto(attended, gelu(up), block.down, adapter), block.mlpNorm, adapter);
  });
}
