import { hooked, isHooked, normalise, projectGated, projectGroup, projectNormed, projectOnto, type KeysValues, type ModelHook, type Norm, type ProjectionGroup } from '@tunefleet/ml-nn';
import { add, cachedAttention, canAttendInCache, geglu, rope, rotaryHeads, selectRows, splitAxis, splitHeads, swiglu, type QueryKeyValue, type RopeTables, type Tensor } from '@tunefleet/ml-tensor';
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
    const [qkv] = projectNormed(x, block.inputNorm, block.qkv, context.adapter) as [Tensor];
    const { k, v } = heads(config, block, qkv, context);
    return { k, v };
  });
}

function selfAttention(config: DecoderConfig, block: GatedBlock, x: Tensor, context: BlockContext): Tensor {
  const { adapter, outputRows } = context;
  const { attention: module, attentionOutput: map } = block.paths;
  const wanted = (all: Tensor): Tensor => (outputRows ? selectRows(all, outputRows) : all);
  return x.device.scope(() => {
    const input = isHooked(adapter, module) ? normalise(x, block.inputNorm, adapter) : null;
    const [qkv] = (input ? projectGroup(input, block.qkv, adapter) : projectNormed(x, block.inputNorm, block.qkv, adapter)) as [Tensor];
    const values = attended(config, block, qkv, context);
    if (!block.attentionOutputNorm && !input && !isHooked(adapter, map)) return projectOnto(wanted(x), wanted(values), block.output, adapter);
    const narrowed = wanted(values);
    const [projected] = projectGroup(narrowed, block.output, adapter) as [Tensor];
    const mapped = hooked(projected, narrowed, adapter, map);
    const output = input ? hooked(mapped, wanted(input), adapter, module) : mapped;
    return add(wanted(x), normed(output, block.attentionOutputNorm, adapter));
  });
}

/** What queries get of the values of keys. @param qkv [B*T, (H + 2K) * D]   @returns [B*T, H*D] */
function attended(config: DecoderConfig, block: GatedBlock, qkv: Tensor, context: BlockContext): Tensor {
  const { attentionScale: scale, attentionSoftcap: softcap, keyValueHeads, headDim: width } = config;
  const { sequence, keysValues } = context;
  const { rope: tables, slotMask } = sequence;
  if (slotMask !== undefined && tables && !block.headNorms && canAttendInCache(qkv, tables)) {
    const slots = keysValues?.slots?.(block.layer, { heads: keyValueHeads, width, dtype: 'f32' });
    if (slots) return cachedAttention(qkv, tables, slots, slotMask, { scale, softcap });
  }
  const { q, k, v } = heads(config, block, qkv, context);
  const seen = keysValues ? keysValues.append(block.layer, k, v) : { k, v };
  return attend(q, seen, sequence, { scale, softcap });
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
  const { mlp: module, mlpOutput: map } = block.paths;
  return x.device.scope(() => {
    const input = isHooked(adapter, module) ? normalise(x, block.mlpInputNorm, adapter) : null;
    const product = gated(config, block, x, input, adapter);
    if (!block.mlpOutputNorm && !input && !isHooked(adapter, map)) return projectOnto(x, product, block.down, adapter);
    const [projected] = projectGroup(product, block.down, adapter) as [Tensor];
    const mapped = hooked(projected, product, adapter, map);
    const output = input ? hooked(mapped, input, adapter, module) : mapped;
    return add(x, normed(output, block.mlpOutputNorm, adapter));
  });
}

/** act(gate) * up. @param input norm(x), where it is known   @returns [B*T, F] */
function gated({ activation, intermediateSize: F }: DecoderConfig, { mlpInputNorm: norm, gateUp }: GatedBlock, x: Tensor, input: Tensor | null, adapter: ModelHook | null): Tensor {
  const whole = activation === 'silu' && !input ? projectGated(x, norm, gateUp, adapter) : null;
  if (whole) return whole;
  const outputs = input ? projectGroup(input, gateUp, adapter) : projectNormed(x, norm, gateUp, adapter);
  const [gate, up] = (outputs.length === 1 ? splitAxis(outputs[0] as Tensor, [F, F], 1) : outputs) as [Tensor, Tensor];
  return activation === 'silu' ? swiglu(gate, up) : geglu(gate, up);
}

function normed(x: Tensor, norm: Norm | null, hook: ModelHook | null): Tensor {
  return norm ? normalise(x, norm, hook) : x;
}
