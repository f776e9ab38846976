import { invariant } from '@tunefleet/foundation';
import { loraAdapterConfigSchema, type AdapterTensor, type LoraAdapter, type ModelCard } from '@tunefleet/ml-formats';
import type { LoraTarget } from './match';
import type { LoraSpec } from './spec';

/** A commit hash, the only kind of revision that other tools can look up on a hub. */
const COMMIT = /^[0-9a-f]{40}$/;

/** @param x [rows, columns]    @returns [columns, rows] */
export function transposed(x: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(x.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) result[column * rows + row] = x[row * columns + column] as number;
  return result;
}

/**
 * An adapter as PEFT stores it: the targets as full paths, so that reading it back does not depend on how they were named.
 * @param values A and Bᵀ of every target, one after the other
 */
export function loraAdapterFile(
  spec: LoraSpec,
  targets: readonly LoraTarget[],
  values: Float32Array,
  base: { readonly id: string; readonly revision: string },
): { readonly adapter: LoraAdapter; readonly card: Pick<ModelCard, 'title' | 'facts'> } {
  const tensors: AdapterTensor[] = [];
  let at = 0;
  const add = (name: string, shape: readonly [number, number], layout: (part: Float32Array) => Float32Array): void => {
    const part = layout(values.slice(at, (at += shape[0] * shape[1])));
    tensors.push({ name, dtype: 'F32', shape, data: new Uint8Array(part.buffer) });
  };
  for (const { path, rank, inSize, outSize } of targets) {
    add(`${path}.lora_A.weight`, [rank, inSize], (a) => a);
    add(`${path}.lora_B.weight`, [outSize, rank], (b) => transposed(b, rank, outSize));
  }
  invariant(at === values.length, `the adapter has ${at} parameters, got ${values.length} values`);
  const config = loraAdapterConfigSchema.parse({
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base.id,
    revision: COMMIT.test(base.revision) ? base.revision : null,
    r: spec.r,
    lora_alpha: spec.lora_alpha,
    lora_dropout: spec.lora_dropout,
    use_rslora: spec.use_rslora,
    init_lora_weights: spec.init_lora_weights,
    target_modules: targets.map(({ path }) => path),
    rank_pattern: spec.rank_pattern,
    alpha_pattern: spec.alpha_pattern,
    fan_in_fan_out: targets.some(({ fanInFanOut }) => fanInFanOut),
  });
  return { adapter: { config, tensors }, card: { title: `LoRA adapter of ${base.id}`, facts: [`Adapted linear maps: ${targets.length}`, `Parameters: ${at}`] } };
}
