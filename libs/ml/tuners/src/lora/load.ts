import { loraAdapterOf, type AdapterFiles, type AdapterTensor, type LoraAdapterConfig } from '@tunefleet/ml-formats';
import { withinTimeLimit } from '../matching/time-limit';
import { floatsOf, unusableAdapter } from '../adapter-tensors';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import type { BindableModel } from '../tuner';
import { LoraTuner } from './lora-tuner';
import { sizeOf, transposed } from './parameters';
import { plannedBy } from './planned-by-file';
import { loraSpecSchema, type LoraSpec } from './spec';
import { frozenTable } from './token-tables';

/** A PEFT LoRA folder, whoever wrote it, for one model. @throws TunefleetError `incompatible_artifact` */
export function loadLora(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const file = loraAdapterOf(files);
  const spec = specOf(file.config);
  const { plan, tensors, notices } = withinTimeLimit(() => plannedBy(file, model, (table) => frozenTable(model, table === 'head' ? (model.head ?? null) : null)));
  const tuner = new LoraTuner(spec, plan);
  const values = new Float32Array(tuner.parameterCount);
  let at = 0;
  for (const parameter of tuner.parameters) {
    const tensor = tensors.get(parameter.name) as AdapterTensor;
    const [rows = 0, columns = 0] = tensor.shape;
    const part = parameter.turned ? transposed(floatsOf(tensor), rows, columns) : floatsOf(tensor);
    values.set(part, at);
    at += sizeOf(parameter);
  }
  const ignored = file.ignoredFields.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${file.ignoredFields.join(', ')}`] : [];
  return openAdapter(model, tuner, values, [...ignored, ...notices]);
}

/** Fields that make it more than a plain LoRA, with the value that does not. `fan_in_fan_out` follows from the base, whatever the file says, as in PEFT. */
const PLAIN: readonly (readonly [field: keyof LoraAdapterConfig, off: unknown])[] = [
  ['target_parameters', null],
];

/** @throws TunefleetError `incompatible_artifact` for what is no plain LoRA */
export function specOf(config: LoraAdapterConfig): LoraSpec {
  for (const [field, off] of PLAIN) {
    const value = config[field];
    if (value !== off && !(Array.isArray(value) && value.length === 0)) throw unusableAdapter(`it has ${field} = ${JSON.stringify(value)?.slice(0, 100)}, which is not supported yet`);
  }
  const init = config.init_lora_weights;
  if (typeof init === 'string' && CHANGES_BASE.test(init)) {
    throw unusableAdapter(`init_lora_weights = "${init}" changes the base weights; save it as a plain LoRA first (PEFT: save_pretrained with path_initial_model_for_weight_conversion)`);
  }
  const parsed = loraSpecSchema.safeParse({
    kind: 'lora',
    r: config.r,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    use_rslora: config.use_rslora,
    use_dora: config.use_dora,
    lora_bias: config.lora_bias,
    bias: config.bias,
    // How it once began no longer matters; only the forms known here are kept.
    init_lora_weights: typeof init === 'boolean' || init === 'gaussian' || (init === 'orthogonal' && config.r % 2 === 0) ? init : true,
    rank_pattern: config.rank_pattern,
    alpha_pattern: config.alpha_pattern,
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw unusableAdapter(`adapter_config.json has a value that cannot be used, ${issue?.path.join('.')}: ${issue?.message}`);
}

const CHANGES_BASE = /^(pissa|olora|loftq|corda|lora_ga)/i;
