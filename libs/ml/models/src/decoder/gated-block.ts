import { hooked, isHooked, normalise, projectGroup, projectOnto, type KeysValues, type ModelHook, type Norm, type ProjectionGroup } from '@tunefleet/ml-nn';
import { add, geglu, rope, rotaryHeads, selectRows, splitAxis, splitHeads, swiglu, type QueryKeyValue, type RopeTables, type Tensor } from '@tunefleet/ml-tensor';
import { attend } from './attend';
import type { DecoderConfig } from './config';
import type { BlockContext } from './block';
import type { BlockPaths } from './module-sites';

/** Weights of one block. */
export interface GatedBlock {
  readonly layer: number;
  readonly paths: BlockPaths;
  readonly inputNorm: Norm;
  /** q, k and v in one map. */
  readonly qkv: ProjectionGroup;
  /** Of queries and of keys, per head. */
  readonly headNorms: { readonly query: Norm; readonly key: Norm } | null;
  readonly output: ProjectionGroup;
  readonly attentionOutputNorm: Norm | null;
  readonly mlpInputNorm: Norm;
  /** gate and up, a map each or in one. */
  readonly gateUp: ProjectionGroup;
  readonly down: ProjectionGroup;
  readonly mlpOutputNorm: Norm | null;
}

/**
 * One decoder block: x + attention(norm(x)), then x + mlp(norm(x)); with output norms, what is added is normed, too.
 * @param x [B*T, C], borrowed
 * @returns [B*T, C], or the wanted rows of it, the caller's
 */
export function runGatedBlock(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  return x.device.scope(() => mlp(config, block, selfAttention(config, block, x, context), context));
}

/** What the block's attention would hold of its input. @param x [B*T, C], borrowed   @returns the caller's */
export function gatedKeysValues(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): KeysValues {
  return x.device.scope(() => {
    const [qkv] = projectGroup(normalise(x, block.inputNorm, context.adapter), block.qkv, context.adapter) as [Tensor];
    const { k, v } = heads(config, block, qkv, context);
    return { k, v };
  });
}

function selfAttention(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  const { attentionScale: scale, attentionSoftcap: softcap } = config;
  const { sequence, adapter, keysValues, outputRows } = context;
  const wanted = (all: Tensor): Tensor => (outputRows ? selectRows(all, outputRows) : all);
  return x.device.scope(() => {
    const input = normalise(x, block.inputNorm, adapter);
    const [qkv] = projectGroup(input, block.qkv, adapter) as [Tensor];
    const { q, k, v } = heads(config, block, qkv, context);
    const seen = keysValues ? keysValues.append(block.layer, k, v) : { k, v };
    const values = attend(q, seen, sequence, { scale, softcap });
    const { attention: module, attentionOutput: map } = block.paths;
    if (!block.attentionOutputNorm && !isHooked(adapter, module, map)) return projectOnto(wanted(x), wanted(values), block.output, adapter);
    const narrowed = wanted(values);
    const [projected] = projectGroup(narrowed, block.output, adapter) as [Tensor];
    const mapped = hooked(projected, narrowed, adapter, map);
    const output = isHooked(adapter, module) ? hooked(mapped, wanted(input), adapter, module) : mapped;
    return add(wanted(x), normed(output, block.attentionOutputNorm, adapter));
  });
}

/** Rotated queries and keys, and values: [B, heads, T, D]. */
function heads({ heads: H, keyValueHeads: K }: DecoderConfig, { headNorms }: GatedBlock, qkv: Tensor, { rows, sequence, adapter }: BlockContext): QueryKeyValue {
  const tables = sequence.rope as RopeTables;
  if (headNorms) {
    const [q, k, v] = splitHeads(qkv, rows, [H, K, K]) as [Tensor, Tensor, Tensor];
    return { q: rope(normalise(q, headNorms.query, adapter), tables), k: rope(normalise(k, headNorms.key, adapter), tables), v };
  }
  return rotaryHeads(qkv, { batch: rows, heads: H, keyValueHeads: K }, tables);
}

function mlp(config: DecoderConfig, block: GatedBlock, x: Tensor, { adapter }: BlockContext): Tensor {
  const { activation, intermediateSize: F } = config;
  return x.device.scope(() => {
    const input = normalise(x, block.mlpInputNorm, adapter);
    const outputs = projectGroup(input, block.gateUp, adapter);
    const [gate, up] = (outputs.length === 1 ? splitAxis(outputs[0] as Tensor, [F, F], 1) : outputs) as [Tensor, Tensor];
    const product = activation === 'silu' ? swiglu(gate, up) : geglu(gate, up);
    const { mlp: module, mlpOutput: map } = block.paths;
    if (!block.mlpOutputNorm && !isHooked(adapter, module, map)) return projectOnto(x, product, block.down, adapter);
    const [projected] = projectGroup(product, block.down, adapter) as [Tensor];
    const output = hooked(hooked(projected, product, adapter, map), input, adapter, module);
    return add(x, normed(output, block.mlpOutputNorm, adapter));
  });
}

function normed(x: Tensor, norm: Norm | null, hook: ModelHook | null): Tensor {
  return norm ? normalise(x, norm, hook) : x;
}
