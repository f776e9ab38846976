import { projectGroup, projectOnto, type ProjectionGroup } from '@tunefleet/ml-nn';
import { add, attention, geglu, mergeHeads, rmsNorm, rope, selectRows, splitAxis, splitHeads, swiglu, type RopeTables, type Tensor } from '@tunefleet/ml-tensor';
import type { DecoderConfig } from './config';
import type { BlockContext } from './model';

/** Weights of one block. Norms are [C], those of queries and keys [D]. */
export interface GatedBlock {
  readonly layer: number;
  readonly inputNorm: Tensor;
  /** q, k and v in one map. */
  readonly qkv: ProjectionGroup;
  /** Of queries and of keys, per head. */
  readonly headNorms: { readonly query: Tensor; readonly key: Tensor } | null;
  readonly output: ProjectionGroup;
  readonly attentionOutputNorm: Tensor | null;
  readonly mlpInputNorm: Tensor;
  /** gate and up, a map each or in one. */
  readonly gateUp: ProjectionGroup;
  readonly down: ProjectionGroup;
  readonly mlpOutputNorm: Tensor | null;
}

/**
 * One decoder block: x + attention(norm(x)), then x + mlp(norm(x)); with output norms, what is added is normed, too.
 * @param x [B*T, C], borrowed
 * @returns [B*T, C], or the wanted rows of it, the caller's
 */
export function runGatedBlock(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  return x.device.scope(() => mlp(config, block, selfAttention(config, block, x, context), context));
}

function selfAttention(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  const { attentionScale: scale, attentionSoftcap: softcap, normEpsilon } = config;
  const { sequence, adapter, cache, outputRows } = context;
  const wanted = (all: Tensor): Tensor => (outputRows ? selectRows(all, outputRows) : all);
  return x.device.scope(() => {
    const [qkv] = projectGroup(rmsNorm(x, block.inputNorm, normEpsilon), block.qkv, adapter) as [Tensor];
    const { q, k, v } = heads(config, block, qkv, context);
    const seen = cache ? cache.append(block.layer, k, v) : { k, v };
    const values = mergeHeads(attention(q, seen.k, seen.v, sequence.mask, { scale, softcap }));
    return addOutput(wanted(x), wanted(values), block.output, block.attentionOutputNorm, config, context);
  });
}

/** Rotated queries and keys, and values: [B, heads, T, D]. */
function heads({ heads: H, keyValueHeads: K, normEpsilon }: DecoderConfig, { headNorms }: GatedBlock, qkv: Tensor, { rows, sequence }: BlockContext): { q: Tensor; k: Tensor; v: Tensor } {
  const tables = sequence.rope as RopeTables;
  if (headNorms) {
    const [q, k, v] = splitHeads(qkv, rows, [H, K, K]) as [Tensor, Tensor, Tensor];
    return { q: rope(rmsNorm(q, headNorms.query, normEpsilon), tables), k: rope(rmsNorm(k, headNorms.key, normEpsilon), tables), v };
  }
  const [qk, v] = splitHeads(qkv, rows, [H + K, K]) as [Tensor, Tensor];
  const [q, k] = splitAxis(rope(qk, tables), [H, K], 1) as [Tensor, Tensor];
  return { q, k, v };
}

function mlp(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  const { activation, intermediateSize: F, normEpsilon } = config;
  return x.device.scope(() => {
    const outputs = projectGroup(rmsNorm(x, block.mlpInputNorm, normEpsilon), block.gateUp, context.adapter);
    const [gate, up] = (outputs.length === 1 ? splitAxis(outputs[0] as Tensor, [F, F], 1) : outputs) as [Tensor, Tensor];
    const product = activation === 'silu' ? swiglu(gate, up) : geglu(gate, up);
    return addOutput(x, product, block.down, block.mlpOutputNorm, config, context);
  });
}

/** x + norm(map(y)), or x + map(y). */
function addOutput(x: Tensor, y: Tensor, map: ProjectionGroup, norm: Tensor | null, { normEpsilon }: DecoderConfig, { adapter }: BlockContext): Tensor {
  if (!norm) return projectOnto(x, y, map, adapter);
  const [output] = projectGroup(y, map, adapter) as [Tensor];
  return add(x, rmsNorm(output, norm, normEpsilon));
}
