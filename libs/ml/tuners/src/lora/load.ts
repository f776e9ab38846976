import { loraAdapterOf, type AdapterFiles, type AdapterTensor, type LoadedLoraAdapter, type LoraAdapterConfig } from '@tunefleet/ml-formats';
import { patternValue } from '../matching/module-names';
import { withinTimeLimit } from '../matching/time-limit';
import { floatsOf, unusableAdapter } from '../adapter-tensors';
import type { LoadedAdapter } from '../loaded-adapter';
import type { BindableModel } from '../tuner';
import { forInference, loraHook, tensorsOf } from './bundles';
import { LoraTuner } from './lora-tuner';
import { loraTarget, type LoraTarget } from './match';
import { magnitudeOf, sizeOf, transposed } from './parameters';
import { loraSpecSchema, type LoraSpec } from './spec';

/** A PEFT LoRA folder, whoever wrote it, for one model. @throws TunefleetError `incompatible_artifact` */
export function loadLora(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { device } = model;
  const file = loraAdapterOf(files);
  const spec = specOf(file.config);
  const tensors = new Map(file.tensors.map((tensor) => [tensor.name, tensor]));
  const targets = withinTimeLimit(() => targetsOf(file, model, tensors));
  const tuner = new LoraTuner(spec, targets);
  const values = new Float32Array(tuner.parameterCount);
  let at = 0;
  for (const { name, turned } of tuner.parameters) {
    const tensor = tensors.get(name) as AdapterTensor;
    const [rows = 0, columns = 0] = tensor.shape;
    const part = turned ? transposed(floatsOf(tensor), rows, columns) : floatsOf(tensor);
    values.set(part, at);
    at += part.length;
  }
  const bundles = device.detached(() => {
    let offset = 0;
    const bound = tuner.parameters.map((parameter) => device.tensor(values.slice(offset, (offset += sizeOf(parameter))), parameter.shape, 'f32'));
    return new Map([...tuner.bundles(model, bound, null)].map(([group, bundle]) => [group, forInference(bundle)]));
  });
  return {
    hook: loraHook(bundles),
    tuner,
    values,
    notices: file.ignoredFields.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${file.ignoredFields.join(', ')}`] : [],
    dispose: () => [...bundles.values()].flatMap(tensorsOf).forEach((tensor) => tensor.dispose()),
  };
}

/** Fields that make it more than a plain LoRA, with the value that does not. `fan_in_fan_out` follows from the base, whatever the file says, as in PEFT. */
const PLAIN: readonly (readonly [field: keyof LoraAdapterConfig, off: unknown])[] = [
  ['bias', 'none'],
  ['lora_bias', false],
  ['modules_to_save', null],
  ['trainable_token_indices', null],
  ['target_parameters', null],
];

function specOf(config: LoraAdapterConfig): LoraSpec {
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

/** Targets in the model's order; ranks come from the tensors, which is what the file really holds. */
function targetsOf({ config }: LoadedLoraAdapter, model: BindableModel, tensors: ReadonlyMap<string, AdapterTensor>): LoraTarget[] {
  const targets: LoraTarget[] = [];
  const used = new Set<string>();
  for (const projection of model.projections) {
    const { path, inSize, outSize } = projection;
    const [a, b] = [tensors.get(`${path}.lora_A.weight`), tensors.get(`${path}.lora_B.weight`)];
    if (!a || !b) continue;
    used.add(a.name).add(b.name);
    if (config.use_dora) used.add(magnitudeOf(path));
    const rank = a.shape[0] ?? 0;
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.shape[1] !== inSize || b.shape[0] !== outSize) {
      throw unusableAdapter(`"${path}" maps ${inSize} to ${outSize} in this model, but the adapter maps ${a.shape[1]} to ${b.shape[0]}; it was made for another base model${config.base_model_name_or_path === null ? '' : ` (${config.base_model_name_or_path})`}`);
    }
    const magnitude = tensors.get(magnitudeOf(path));
    if (config.use_dora && (magnitude?.shape.length !== 1 || magnitude.shape[0] !== outSize)) throw unusableAdapter(`it has use_dora, but "${magnitudeOf(path)}" is not a vector of ${outSize} numbers`);
    const alpha = patternValue(config.alpha_pattern, path) ?? config.lora_alpha;
    targets.push(loraTarget(projection, rank, alpha, config.use_rslora));
  }
  const unused = [...tensors.keys()].filter((name) => !used.has(name));
  if (unused.length > 0) {
    throw unusableAdapter(`${unused.length} of its tensors belong to no linear map of this ${model.modelType} model that can be adapted: ${unused.slice(0, 5).join(', ')}${unused.length > 5 ? ', ...' : ''}; it was made for another base model, or adapts the embedding or the output head, which is not supported yet`);
  }
  if (targets.length === 0) throw unusableAdapter('it holds no tensors');
  return targets;
}
