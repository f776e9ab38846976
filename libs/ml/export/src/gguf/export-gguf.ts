import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TunefleetError, invariant } from '@tunefleet/foundation';
import { GGML_TYPES, fitsBlocks, ggufNameOf, ggufTokenizerFields, quantise, writeGguf, type AdapterFiles, type GgmlTypeName, type GgufDeclaration, type GgufField } from '@tunefleet/ml-formats';
import { Checkpoint, describeCausalLm } from '@tunefleet/ml-models';
import { loraFactorsOf } from '@tunefleet/ml-tuners';
import { baseOnDisk } from '../base-on-disk';
import type { MergedWeights } from '../merged/merged-weights';
import { ggufLayout } from './layout';

export interface GgufExport {
  /** The base's folder, for its tokenizer. */
  readonly base: string;
  /** Content of the base's config.json. */
  readonly config: unknown;
  /** Of matrices; vectors and positions are f32. Rows that are no whole blocks are f16. */
  readonly type: GgmlTypeName;
  readonly name: string;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** `general.file_type` of llama.cpp. */
const FILE_TYPE: Readonly<Record<GgmlTypeName, number>> = { F32: 0, F16: 1, Q8_0: 7 };

/**
 * Writes merged weights as one GGUF file, tensor by tensor, with tokenizer and chat template.
 * @returns what the user should be told
 * @throws TunefleetError `incompatible_artifact`: the tokenizer has no form in GGUF; `conflict`: the file exists
 */
export async function exportGguf(weights: MergedWeights, path: string, { base, config, type, name, onProgress }: GgufExport): Promise<string[]> {
  if (existsSync(path)) throw new TunefleetError('conflict', `${path} is there already: remove it, or name another file`);
  const layout = ggufLayout(config);
  const notices = [...layout.notices];
  const sources = new Map<string, string>();
  const declarations: GgufDeclaration[] = weights.tensors.map(({ name: source, shape }) => {
    const target = ggufNameOf(source, layout.outputNorms);
    invariant(target !== undefined, `${source} has no name in GGUF`);
    sources.set(target, source);
    const turned = layout.turn(source, new Float32Array(), shape).shape;
    return { name: target, type: typeOf(target, turned, type), shape: turned };
  });
  if (weights.unties && layout.architecture === 'gemma2') throw new TunefleetError('incompatible_artifact', 'the adapter changes only one of embedding and head, and GGUF has one table for both in gemma2; export it as "merged"', { reason: 'bad_adapter' });
  if (layout.ropeFactors) declarations.push({ name: 'rope_freqs.weight', type: 'F32', shape: [layout.ropeFactors.length] });
  const metadata = new Map<string, GgufField>([
    ['general.architecture', { type: 'string', value: layout.architecture }],
    ['general.type', { type: 'string', value: 'model' }],
    ['general.name', { type: 'string', value: name }],
    ['general.file_type', { type: 'u32', value: FILE_TYPE[type] }],
    ['general.quantization_version', { type: 'u32', value: 2 }],
    ...layout.metadata,
    ...tokenizerFields(base, config, notices),
  ]);
  let done = 0;
  await writeGguf(path, metadata, declarations, (tensor) => {
    onProgress?.(++done, declarations.length);
    const source = sources.get(tensor.name);
    if (source === undefined) return quantise('F32', layout.ropeFactors ?? new Float32Array());
    const { shape = [] } = weights.tensors.find((each) => each.name === source) ?? {};
    return quantise(tensor.type, layout.turn(source, weights.values(source), shape).values);
  });
  return notices;
}

/**
 * Writes a LoRA as a GGUF adapter, for a base that is GGUF already. Scales that differ between maps are put into B.
 * @throws TunefleetError `incompatible_artifact`: not LoRA, or more than linear maps
 */
export async function exportGgufAdapter(base: string, config: unknown, files: AdapterFiles, path: string): Promise<void> {
  if (existsSync(path)) throw new TunefleetError('conflict', `${path} is there already: remove it, or name another file`);
  const { head, tied } = describeCausalLm(config).tables;
  const layout = ggufLayout(config);
  using checkpoint = Checkpoint.open(base, config);
  const targets = loraFactorsOf(baseOnDisk(checkpoint, config), files, 'be a GGUF adapter');
  if (tied && targets.some((target) => target.path === head)) throw new TunefleetError('incompatible_artifact', `the adapter adapts "${head}", which is the embedding in this base and has no tensor of its own in GGUF; export it as "gguf"`, { reason: 'bad_adapter' });
  const alpha = targets[0]?.alpha ?? 1;
  const data = new Map<string, Float32Array>();
  const declarations = targets.flatMap(({ path: map, rank, inSize, outSize, scale, a, b }): GgufDeclaration[] => {
    const name = ggufNameOf(`${map}.weight`, layout.outputNorms) ?? map;
    // Readers scale by alpha / rank.
    const factor = (scale * rank) / alpha;
    data.set(`${name}.lora_a`, a);
    data.set(`${name}.lora_b`, layout.turnOutputs(map, factor === 1 ? b : b.map((value) => value * factor)));
    return [
      { name: `${name}.lora_a`, type: 'F32', shape: [rank, inSize] },
      { name: `${name}.lora_b`, type: 'F32', shape: [outSize, rank] },
    ];
  });
  const metadata = new Map<string, GgufField>([
    ['general.architecture', { type: 'string', value: layout.architecture }],
    ['general.type', { type: 'string', value: 'adapter' }],
    ['adapter.type', { type: 'string', value: 'lora' }],
    ['adapter.lora.alpha', { type: 'f32', value: alpha }],
  ]);
  await writeGguf(path, metadata, declarations, ({ name }) => quantise('F32', data.get(name) ?? new Float32Array()));
}

function typeOf(name: string, shape: readonly number[], type: GgmlTypeName): GgmlTypeName {
  if (shape.length < 2 || name.startsWith('position_embd')) return 'F32';
  return fitsBlocks(type, shape.at(-1) ?? 0) ? type : 'F16';
}

function tokenizerFields(base: string, config: unknown, notices: string[]): Map<string, GgufField> {
  const { vocabSize } = describeCausalLm(config);
  const read = (name: string): string | null => (existsSync(join(base, name)) ? readFileSync(join(base, name), 'utf8') : null);
  const tokenizer = read('tokenizer.json');
  if (tokenizer === null) {
    notices.push('the base has no tokenizer.json, so the file has no tokenizer');
    return new Map([['tokenizer.ggml.model', { type: 'string', value: 'none' }]]);
  }
  const tokenizerConfig = JSON.parse(read('tokenizer_config.json') ?? '{}') as Record<string, unknown>;
  const inConfig = tokenizerConfig['chat_template'];
  const id = (name: string): number | null => {
    const value = (config as Record<string, unknown>)[name];
    const first: unknown = Array.isArray(value) ? value[0] : value;
    return typeof first === 'number' ? first : null;
  };
  return ggufTokenizerFields({
    tokenizer: JSON.parse(tokenizer),
    tokenizerConfig,
    chatTemplate: read('chat_template.jinja') ?? (typeof inConfig === 'string' ? inConfig : null),
    vocabSize,
    ids: { bos: id('bos_token_id'), eos: id('eos_token_id'), pad: id('pad_token_id') },
  });
}

export function isGgmlType(name: string): name is GgmlTypeName {
  return Object.hasOwn(GGML_TYPES, name);
}
