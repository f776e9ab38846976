import { fillUniform, invariant } from '@tunefleet/foundation';
import { formatAdapterConfig, formatModelCard, writeAdapterFiles, type AdapterFiles, type AdapterTensor } from '@tunefleet/ml-formats';
import type { ModelHook } from '@tunefleet/ml-nn';
import { cast, type Tensor } from '@tunefleet/ml-tensor';
import { z } from 'zod';
import { floatsOf, tensorOf, unusableAdapter } from '../adapter-tensors';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import type { BindableModel, ParameterInfo, TunableModel, Tuner } from '../tuner';
import { virtualTokenCount } from '../virtual-tokens/fields';
import { matchBlocks, type PromptedBlock } from './match';
import type { DeepPromptTuningSpec } from './spec';

/** Name that SWIFT gives an adapter which was given none. */
const ADAPTER_NAME = 'default';

export function createDeepPromptTuning(spec: DeepPromptTuningSpec, model: TunableModel): Tuner {
  return new DeepPromptTuner(spec, matchBlocks(spec, model), model.hiddenSize);
}

/**
 * SWIFT's Prompt: n virtual tokens before every row, whose hidden states are trained anew where they enter a block. Blocks without tokens of their own go on with
 * what the block before made of them.
 */
class DeepPromptTuner implements Tuner {
  readonly kind = 'deep-prompt-tuning';
  /** The file has them as [1, n, C]. */
  readonly parameters: readonly ParameterInfo[];
  readonly parameterCount: number;

  constructor(
    private readonly spec: DeepPromptTuningSpec,
    private readonly blocks: readonly PromptedBlock[],
    private readonly width: number,
  ) {
    this.parameters = blocks.map(({ path }) => ({ name: `${path}.prompt_${ADAPTER_NAME}.prompt_token`, shape: [spec.prompt_length, width] }));
    this.parameterCount = blocks.length * spec.prompt_length * width;
  }

  initialValues(seed: number): Float32Array {
    const values = new Float32Array(this.parameterCount);
    const n = this.spec.prompt_length;
    // Xavier's bound as torch takes it for [1, n, C].
    this.blocks.forEach((_, stream) => fillUniform(values.subarray(stream * n * this.width, (stream + 1) * n * this.width), Math.sqrt(6 / (this.width * (n + 1))), seed, stream));
    return values;
  }

  bind({ computeDtype }: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.blocks.length, `${this.blocks.length} parameters were bound to ${values.length} tensors`);
    return {
      prefix: {
        length: this.spec.prompt_length,
        behindPositions: true,
        keysValues: (lent) => lent.ofLayerInputs(new Map(this.blocks.map(({ layer }, index) => [layer, cast(values[index] as Tensor, computeDtype)]))),
      },
    };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    const { kind: _kind, ...fields } = this.spec;
    const n = fields.prompt_length;
    const config = { swift_type: 'PROMPT', model_key_mapping: null, ...fields, dim: this.width, target_modules: this.blocks.map(({ path }) => path) };
    const card = formatModelCard({
      title: `Deep prompt tuning of ${base.id}`,
      base: base.id,
      revision: base.revision,
      tag: 'deep-prompt-tuning',
      method: `Deep prompt tuning (SWIFT Prompt), ${n} virtual tokens in ${this.blocks.length} blocks`,
      library: 'swift',
      facts: [`Parameters: ${values.length}`],
    });
    const tensors = this.parameters.map(({ name }, index) => tensorOf(name, [1, n, this.width], values, index * n * this.width));
    return writeAdapterFiles(folder, { config: formatAdapterConfig(config), tensors, card });
  }
}

const fileSchema = z.object({
  prompt_length: virtualTokenCount.default(16),
  attach_front: z.boolean().default(true),
  extract_embedding: z.boolean().default(false),
  embedding_pos: z.union([z.int().min(0), z.string()]).nullish(),
  attention_mask_pos: z.union([z.int().min(0), z.string()]).nullish(),
  attention_mask_value: z.union([z.number(), z.boolean()]).nullish(),
  dim: z.unknown(),
  target_modules: z.unknown(),
});
const WITHOUT_EFFECT = ['swift_type', 'model_key_mapping'];
const KEY = /^(.+)\.prompt_([A-Za-z0-9_-]+)\.prompt_token$/;

/** A SWIFT adapter of type PROMPT. Which blocks it is for is read from its tensors. @throws TunefleetError `incompatible_artifact` */
export function loadDeepPromptTuning(model: BindableModel, { config, tensors }: AdapterFiles): LoadedAdapter {
  const parsed = fileSchema.safeParse(config);
  if (!parsed.success) throw unusableAdapter(`adapter_config.json has a value that cannot be used, ${parsed.error.issues[0]?.path.join('.')}: ${parsed.error.issues[0]?.message}`);
  const { prompt_length: n, attach_front, extract_embedding, ...rest } = parsed.data;
  if (!attach_front) throw unusableAdapter('it has attach_front = false: behind the text no token of a causal model sees its virtual tokens');
  if (extract_embedding) throw unusableAdapter('it has extract_embedding = true, which cuts the virtual tokens off after every block; that is not supported');
  const C = model.hiddenSize;
  const byPath = byBlock(tensors);
  const blocks = model.modules.filter(({ kind, path }) => kind === 'block' && byPath.has(path)).map(({ path, layer }) => ({ path, layer }));
  const stray = [...byPath.keys()].filter((path) => !blocks.some((block) => block.path === path));
  if (stray.length > 0) throw unusableAdapter(`${stray.length} of its tensors belong to no block of this ${model.modelType} model: ${stray.slice(0, 5).join(', ')}; it was made for another base model`);
  if (blocks[0]?.layer !== 0) throw unusableAdapter('it has no virtual tokens for the first block, so those of the others would overwrite real tokens');
  const values = new Float32Array(blocks.length * n * C);
  blocks.forEach(({ path }, index) => {
    const tensor = byPath.get(path) as AdapterTensor;
    if (tensor.shape.join() !== `1,${n},${C}`) throw unusableAdapter(`"${tensor.name}" is [${tensor.shape.join(', ')}], which would have to be [1, ${n}, ${C}]; it was made for another base model, or its prompt_length is not ${n}`);
    values.set(floatsOf(tensor), index * n * C);
  });
  if (!values.every(Number.isFinite)) throw unusableAdapter('it holds numbers that are not finite; it is damaged, or its training failed');
  const spec: DeepPromptTuningSpec = {
    kind: 'deep-prompt-tuning',
    dim: C,
    target_modules: blocks.map(({ path }) => path),
    prompt_length: n,
    attach_front: true,
    extract_embedding: false,
    embedding_pos: rest.embedding_pos ?? 0,
    attention_mask_pos: rest.attention_mask_pos ?? null,
    attention_mask_value: rest.attention_mask_value ?? 0,
  };
  const unknown = Object.keys(config).filter((name) => !(name in fileSchema.shape) && !WITHOUT_EFFECT.includes(name));
  const notices = unknown.length > 0 ? [`fields of adapter_config.json that are not known and were ignored: ${unknown.join(', ')}`] : [];
  return openAdapter(model, new DeepPromptTuner(spec, blocks, C), values, notices);
}

/** Tensors by the block they are for, of one adapter. */
function byBlock(tensors: readonly AdapterTensor[]): Map<string, AdapterTensor> {
  const byPath = new Map<string, AdapterTensor>();
  const names = new Set<string>();
  for (const tensor of tensors) {
    const [, path = '', name = ''] = KEY.exec(tensor.name) ?? [];
    if (path === '') throw unusableAdapter(`a tensor that is not known: "${tensor.name}"; they should be called <block>.prompt_<adapter>.prompt_token`);
    byPath.set(path, tensor);
    names.add(name);
  }
  if (names.size > 1) throw unusableAdapter(`it holds the adapters ${[...names].join(', ')}; a folder is for one`);
  return byPath;
}
