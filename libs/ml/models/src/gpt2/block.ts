import { hooked, isHooked, normalise, projectGroup, projectOnto, type KeysValues, type Norm, type ProjectionGroup } from '@tunefleet/ml-nn';
import { add, geluTanh, selectRows, splitHeads, type Tensor } from '@tunefleet/ml-tensor';
import { attend } from '../decoder/attend';
import type { BlockContext } from '../decoder/block';
import type { BlockPaths } from '../decoder/module-sites';

/** Weights and settings of one block. */
export interface Gpt2Block {
  readonly layer: number;
  readonly paths: BlockPaths;
  readonly heads: number;
  readonly attentionScale: number;
  readonly attentionNorm: Norm;
  readonly qkv: ProjectionGroup;
  readonly output: ProjectionGroup;
  readonly mlpNorm: Norm;
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

/** What the block's attention would hold of its input. @param x [B*T, C], borrowed   @returns the caller's */
export function gpt2KeysValues(block: Gpt2Block, x: Tensor, { rows, adapter }: BlockContext): KeysValues {
  return x.device.scope(() => {
    const [, k, v] = heads(block, normalise(x, block.attentionNorm, adapter), rows, adapter) as [Tensor, Tensor, Tensor];
    return { k, v };
  });
}

/** Queries, keys and values, [B, H, T, D]. */
function heads({ qkv: group, heads: H }: Gpt2Block, x: Tensor, rows: number, adapter: BlockContext['adapter']): readonly Tensor[] {
  const [qkv] = projectGroup(x, group, adapter) as [Tensor];
  return splitHeads(qkv, rows, [H, H, H]);
}

function selfAttention(block: Gpt2Block, x: Tensor, { rows, sequence, adapter, keysValues, outputRows }: BlockContext): Tensor {
  const wanted = (all: Tensor): Tensor => (outputRows ? selectRows(all, outputRows) : all);
  return x.device.scope(() => {
    const input = normalise(x, block.attentionNorm, adapter);
    const [q, k, v] = heads(block, input, rows, adapter) as [Tensor, Tensor, Tensor];
    const seen = keysValues ? keysValues.append(block.layer, k, v) : { k, v };
    const values = wanted(attend(q, seen, sequence, { scale: block.attentionScale }));
    const { attention: module, attentionOutput: map } = block.paths;
    if (!isHooked(adapter, module, map)) return projectOnto(wanted(x), values, block.output, adapter);
    const [projected] = projectGroup(values, block.output, adapter) as [Tensor];
    return add(wanted(x), hooked(hooked(projected, values, adapter, map), wanted(input), adapter, module));
  });
}

function mlp(block: Gpt2Block, x: Tensor, { adapter }: BlockContext): Tensor {
  return x.device.scope(() => {
    const input = normalise(x, block.mlpNorm, adapter);
    const [up] = projectGroup(input, block.up, adapter) as [Tensor];
    const inside = geluTanh(up);
    const { mlp: module, mlpOutput: map } = block.paths;
    if (!isHooked(adapter, module, map)) return projectOnto(x, inside, block.down, adapter);
    const [projected] = projectGroup(inside, block.down, adapter) as [Tensor];
    return add(x, hooked(hooked(projected, inside, adapter, map), input, adapter, module));
  });
}
