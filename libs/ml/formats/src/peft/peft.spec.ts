import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeSafetensors, SafetensorsFile } from '../safetensors';
import { formatLoraConfig, loraAdapterConfigSchema, loraConfigOf, parseAdapterKey, readLoraAdapter, writeLoraAdapter, type LoraAdapter } from './index';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'peft-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const f32 = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const adapter: LoraAdapter = {
  config: loraAdapterConfigSchema.parse({ peft_type: 'LORA', task_type: 'CAUSAL_LM', base_model_name_or_path: 'owner/base', r: 1, lora_alpha: 16, target_modules: ['model.layers.0.self_attn.q_proj'] }),
  tensors: [
    { name: 'model.layers.0.self_attn.q_proj.lora_B.weight', dtype: 'F32', shape: [3, 1], data: f32(0, 0, 0) },
    { name: 'model.layers.0.self_attn.q_proj.lora_A.weight', dtype: 'F32', shape: [1, 2], data: f32(1, 2) },
  ],
};
const card = { title: 'A test', facts: ['Loss: 2 -> 1'] };

describe('PEFT LoRA folder', () => {
  it('reads back what it wrote, with the keys PEFT uses in the file', async () => {
    await writeLoraAdapter(folder, adapter, card);
    expect(readdirSync(folder).sort()).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors']);
    using file = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    expect([...file.tensors.keys()]).toEqual(['base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight', 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight']);
    expect(file.metadata).toEqual({ format: 'pt' });
    const read = await readLoraAdapter(folder);
    expect(read.config).toEqual(adapter.config);
    expect(read.ignoredFields).toEqual([]);
    expect(read.tensors).toEqual([...adapter.tensors].reverse());
  });

  it('writes equal bytes for equal adapters and escapes the card', async () => {
    const [one, other] = [join(folder, 'one'), join(folder, 'other')];
    await writeLoraAdapter(one, adapter, card);
    await writeLoraAdapter(other, { ...adapter, tensors: [...adapter.tensors].reverse() }, { ...card, title: '<script>\n---' });
    for (const name of ['adapter_config.json', 'adapter_model.safetensors']) expect(readFileSync(join(other, name))).toEqual(readFileSync(join(one, name)));
    expect(readFileSync(join(other, 'README.md'), 'utf8')).toContain('# &lt;script&gt; ---');
  });

  it('writes sorted, long-established fields only', () => {
    const text = formatLoraConfig(adapter.config);
    const keys = Object.keys(JSON.parse(text) as object);
    expect(keys).toEqual([...keys].sort());
    expect(keys).toEqual('alpha_pattern auto_mapping base_model_name_or_path bias exclude_modules fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform lora_alpha lora_bias lora_dropout modules_to_save peft_type r rank_pattern revision target_modules target_parameters task_type trainable_token_indices use_dora use_rslora'.split(' '));
    expect(text).toContain('\n  "r": 1,\n');
  });

  it('takes missing fields from the defaults and reports fields it ignores', () => {
    const { config, ignoredFields } = loraConfigOf({ peft_type: 'LORA', peft_version: '0.21.0', loftq_config: {}, brand_new: 3, use_qalora: true });
    expect(config).toMatchObject({ r: 8, lora_alpha: 8, bias: 'none', target_modules: null });
    expect(ignoredFields).toEqual(['brand_new', 'use_qalora']);
  });

  it.each<[string, string]>([
    ['{"peft_type":"IA3"}', 'peft_type "IA3"'],
    ['{"peft_type":"LORA","r":0}', 'bad field r'],
    ['{', 'not JSON'],
    ['[]', 'not a JSON object'],
  ])('refuses %s', async (text, message) => {
    await writeLoraAdapter(folder, adapter, card);
    writeFileSync(join(folder, 'adapter_config.json'), text);
    await expect(readLoraAdapter(folder)).rejects.toThrow(message);
  });

  it.each<[string, string | undefined]>([
    ['base_model.model.model.layers.0.q.lora_A.weight', 'model.layers.0.q.lora_A.weight'],
    ['model.layers.0.q.lora_B.weight', 'model.layers.0.q.lora_B.weight'],
    ['base_model.model.q.lora_A.default.weight', 'q.lora_A.weight'],
    ['base_model.model.q.lora_B.mine.bias', 'q.lora_B.bias'],
    ['base_model.model.q.lora_magnitude_vector.weight', 'q.lora_magnitude_vector'],
    ['base_model.model.q.lora_magnitude_vector.default.weight', 'q.lora_magnitude_vector'],
    ['base_model.model.e.lora_embedding_A.default', 'e.lora_embedding_A'],
    ['base_model.model.lm_head.weight', undefined],
  ])('understands the key %s', (fileKey, expected) => {
    const key = parseAdapterKey(fileKey);
    expect(key === undefined ? undefined : `${key.module}.${key.parameter}`).toBe(expected);
  });

  it('refuses unknown tensors, pickles, half pairs and differing ranks', async () => {
    writeFileSync(join(folder, 'adapter_config.json'), formatLoraConfig(adapter.config));
    writeFileSync(join(folder, 'adapter_model.bin'), 'pickle');
    await expect(readLoraAdapter(folder)).rejects.toThrow('Python pickle');
    const store = (tensors: LoraAdapter['tensors']): void => writeFileSync(join(folder, 'adapter_model.safetensors'), encodeSafetensors(tensors));
    store([{ name: 'lm_head.weight', dtype: 'F32', shape: [1], data: f32(1) }]);
    await expect(readLoraAdapter(folder)).rejects.toThrow('1 tensors that are not LoRA\'s: lm_head.weight');
    store([adapter.tensors[0]!]);
    await expect(readLoraAdapter(folder)).rejects.toThrow('but not "model.layers.0.self_attn.q_proj.lora_A.weight"');
    store([adapter.tensors[1]!, { ...adapter.tensors[0]!, shape: [1, 3] }]);
    await expect(readLoraAdapter(folder)).rejects.toThrow('has rank 1 but');
  });

  it('loads a folder written by PEFT itself', async () => {
    const read = await readLoraAdapter(join(import.meta.dirname, '../../fixtures/peft-lora'));
    expect(read.ignoredFields).toEqual([]);
    expect(read.config).toMatchObject({ r: 2, lora_alpha: 4, use_rslora: true, task_type: 'CAUSAL_LM' });
    expect(read.tensors.map(({ name, shape }) => [name, shape])).toContainEqual(['model.layers.0.self_attn.q_proj.lora_A.weight', [2, 16]]);
    const text = readFileSync(join(import.meta.dirname, '../../fixtures/peft-lora/adapter_config.json'), 'utf8');
    expect(JSON.parse(text)).toMatchObject(JSON.parse(formatLoraConfig(read.config)) as object);
  });
});
