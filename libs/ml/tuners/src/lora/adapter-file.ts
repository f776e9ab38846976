import { invariant } from '@tunefleet/foundation';
import { loraAdapterConfigSchema, type AdapterTensor, type LoraAdapter, type ModelCard } from '@tunefleet/ml-formats';
import type { LoraTarget } from './match';
import { transposed, type LoraParameter } from './parameters';
import type { LoraSpec } from './spec';

/** A commit hash, the only kind of revision that other tools can look up on a hub. */
const COMMIT = /^[0-9a-f]{40}$/;

/**
 * An adapter as PEFT stores it: the targets as full paths, so that reading it back does not depend on how they were named.
 * @param values of all parameters, one after the other
 */
export function loraAdapterFile(
  spec: LoraSpec,
  targets: readonly LoraTarget[],
  parameters: readonly LoraParameter[],
  values: Float32Array,
  base: { readonly id: string; readonly revision: string },
): { readonly adapter: LoraAdapter; readonly card: Pick<ModelCard, 'title' | 'facts'> } {
  const tensors: AdapterTensor[] = [];
  let at = 0;
  for (const { name, shape, turned } of parameters) {
    const part = values.slice(at, (at += shape.reduce((product, size) => product * size, 1)));
    const [rows = 0, columns = 0] = shape;
    const stored = turned ? transposed(part, rows, columns) : part;
    tensors.push({ name, dtype: 'F32', shape: turned ? [columns, rows] : shape, data: new Uint8Array(stored.buffer) });
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
    use_dora: spec.use_dora,
    init_lora_weights: spec.init_lora_weights,
    target_modules: targets.map(({ path }) => path),
    rank_pattern: spec.rank_pattern,
    alpha_pattern: spec.alpha_pattern,
    fan_in_fan_out: targets.some(({ fanInFanOut }) => fanInFanOut),
  });
  return { adapter: { config, tensors }, card: { title: `${spec.use_dora ? 'DoRA' : 'LoRA'} adapter of ${base.id}`, facts: [`Adapted linear maps: ${targets.length}`, `Parameters: ${at}`] } };
}
