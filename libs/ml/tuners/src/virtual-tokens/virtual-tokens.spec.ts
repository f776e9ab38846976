/** The prompt-learning methods of PEFT over the tiny Llama: files, start values, what is held for inference, together with LoRA, in bf16, and refusals. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeSafetensors, SafetensorsFile } from '@tunefleet/ml-formats';
import { describeCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { embedding } from '@tunefleet/ml-tensor';
import { createTuner, estimateMemory, loadAdapter, parseTunerSpec, specHalfOf } from '..';
import { largest, logitsWith, maxDifference, parametersOf, startWith, trainingPass } from '../testing';
import { folderOf, goldenOf, handlesOf, METHODS, n, openBase, type Method } from './testing';

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'virtual-tokens-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe.each(Object.keys(METHODS) as Method[])('%s over the tiny Llama', (method) => {
  const fields = METHODS[method];
  const golden = goldenOf(method, 'tied');
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase('tied');
  });
  afterAll(() => model[Symbol.dispose]());

  test('written as PEFT writes it: key, shape, numbers and long-established fields', async () => {
    const tuner = createTuner(parseTunerSpec(fields), model);
    const folder = join(work, method);
    await tuner.save(golden.valuesOf(tuner), folder, { id: 'tiny/tied', revision: 'local-1' });
    const config = async (at: string) => JSON.parse(await readFile(join(at, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
    const { peft_version: _version, init_weights: _init, ...theirs } = await config(folderOf(method, 'tied'));
    expect(await config(folder)).toEqual(theirs);
    const [ours, wanted] = [folder, folderOf(method, 'tied')].map((at) => {
      using file = SafetensorsFile.open(join(at, 'adapter_model.safetensors'));
      return [...file.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape, values: new Float32Array(file.read(name).slice().buffer) }));
    });
    expect(ours?.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual(wanted?.map(({ name, dtype, shape }) => [name, dtype, shape]));
    expect(maxDifference(ours?.[0]?.values ?? [], wanted?.[0]?.values ?? [])).toBeLessThan(method === fields.kind && method !== 'p-tuning' ? Number.MIN_VALUE : 1e-6);
    const again = await loadAdapter(model, folder);
    await again.tuner.save(again.values, `${folder}-again`, { id: 'tiny/tied', revision: 'local-1' });
    for (const name of ['adapter_config.json', 'adapter_model.safetensors']) expect((await readFile(join(`${folder}-again`, name))).equals(await readFile(join(folder, name)))).toBe(true);
    expect(maxDifference(logitsWith(model, golden.batch, { adapter: again.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    again.dispose();
  });

  test('its parameters are as many as the control plane counts, and start as PEFT has them', () => {
    for (const init of method === 'prefix-projection' || method === 'prefix-tuning' ? [{}, { init_weights: 'zero' }] : [{}]) {
      const spec = parseTunerSpec({ ...fields, ...init });
      const tuner = createTuner(spec, model);
      expect(specHalfOf(spec).countParameters(spec, model)).toBe(tuner.parameterCount);
      expect(specHalfOf(spec).virtualTokens?.(spec)).toBe(n);
      const values = tuner.initialValues(7, startWith(model));
      expect(values).toEqual(tuner.initialValues(7, startWith(model)));
      let at = 0;
      tuner.parameters.forEach(({ name, shape }, index) => {
        const part = values.subarray(at, (at += shape.reduce((product, size) => product * size, 1)));
        const zero = 'init_weights' in init && (tuner.parameters.length === 1 || index >= tuner.parameters.length - 2);
        const bound = zero ? 0 : /weight|bias/.test(name) && index > 0 ? 1 / Math.sqrt((name.endsWith('bias') ? tuner.parameters[index - 1]?.shape[1] : shape[1]) ?? NaN) : Infinity;
        expect(largest(part)).toBeLessThanOrEqual(bound);
        if (zero) return;
        const deviation = Math.sqrt(part.reduce((sum, value) => sum + value * value, 0) / part.length);
        const expected = bound === Infinity ? 1 : bound / Math.sqrt(3);
        expect(Math.abs(deviation / expected - 1)).toBeLessThan(4 / Math.sqrt(part.length));
      });
    }
  });

  test('keys and values are computed once for many passes, for every set of active adapters, and freed', async () => {
    const alone = logitsWith(model, golden.batch);
    const before = handlesOf(model);
    const adapter = await loadAdapter(model, folderOf(method, 'tied'));
    const calls: number[] = [];
    const counted = { ...adapter.hook, project: () => (calls.push(1), null) };
    const first = logitsWith(model, golden.batch, { adapter: counted });
    const [cold, held] = [calls.length, handlesOf(model)];
    expect(logitsWith(model, golden.batch, { adapter: counted })).toEqual(first);
    const passes = model.projectionGroups.length;
    expect(cold > passes).toBe(!method.startsWith('prefix'));
    expect(calls.length - cold).toBe(passes);
    expect(handlesOf(model)).toBe(held);
    for (let i = 0; i < 12; i++) logitsWith(model, golden.batch, { adapter: { ...adapter.hook } });
    expect(handlesOf(model)).toBeLessThanOrEqual(before + 1 + 4 * 2 * model.layers);
    adapter.dispose();
    expect(handlesOf(model)).toBe(before);
    expect(logitsWith(model, golden.batch)).toEqual(alone);
  });

  test('together with a LoRA, which changes what the virtual tokens become', async () => {
    const [prefix, lora] = [createTuner(parseTunerSpec(fields), model), createTuner(parseTunerSpec({ kind: 'lora', r: 2, init_lora_weights: false, target_modules: 'all-linear' }), model)];
    const adapter = await loadAdapter(model, folderOf(method, 'tied'));
    model.device.scope(() => {
      const loraHook = lora.bind(model, parametersOf(model.device, lora, lora.initialValues(3, startWith(model))), null);
      const fresh = prefix.bind(model, parametersOf(model.device, prefix, golden.valuesOf(prefix)), null);
      const both = logitsWith(model, golden.batch, { adapter: { ...loraHook, ...fresh } });
      expect(maxDifference(both, logitsWith(model, golden.batch, { adapter: loraHook }))).toBeGreaterThan(0.1);
      expect(maxDifference(both, golden.floats('logits'))).toBeGreaterThan(0.1);
      // What is held for one set is not taken for another.
      expect(maxDifference(logitsWith(model, golden.batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
      expect(maxDifference(logitsWith(model, golden.batch, { adapter: { ...loraHook, ...adapter.hook } }), both)).toBeLessThan(1e-5);
      expect(maxDifference(logitsWith(model, golden.batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    });
    adapter.dispose();
  });

  test('a step in bf16 stays close', async () => {
    using half = await openBase('tied', 'tensorflow', 'bf16');
    const tuner = createTuner(parseTunerSpec(fields), half);
    const { loss, gradients } = trainingPass(half, tuner, golden.valuesOf(tuner), golden.batch, golden.labels);
    expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(0.1);
    tuner.parameters.forEach(({ name }, index) => {
      const wanted = golden.floats(`grad.${name}`);
      expect(maxDifference(gradients[index] ?? [], wanted)).toBeLessThan(0.15 * largest(wanted));
    });
  });
});

test('prompt tuning starts from tokens of the vocabulary, or of a text, as the embedding gives them', async () => {
  using model = await openBase('gemma2');
  const C = model.hiddenSize;
  const table = (fields: object, tokenise: (text: string) => Int32Array) => createTuner(parseTunerSpec({ kind: 'prompt-tuning', num_virtual_tokens: n, ...fields }), model).initialValues(7, { model, tokenise });
  const rowOf = (id: number) => model.device.scope(() => model.device.readFloats(embedding(model.embeddings, Int32Array.of(id), 'f32')).map((value) => Math.fround(value * model.embeddingScale)));
  const text = table({ prompt_tuning_init: 'TEXT', prompt_tuning_init_text: 'classify' }, (given) => Int32Array.from(given === 'classify' ? [3, 9, 4] : []));
  [3, 9, 4, 3, 9].forEach((id, row) => expect(maxDifference(text.subarray(row * C, (row + 1) * C), rowOf(id))).toBeLessThan(1e-6));
  const sampled = table({ prompt_tuning_init: 'SAMPLE_VOCAB' }, () => new Int32Array(0));
  const vocabulary = Array.from({ length: model.vocabSize }, (_, id) => rowOf(id));
  for (let row = 0; row < n; row++) expect(Math.min(...vocabulary.map((each) => maxDifference(each, sampled.subarray(row * C, (row + 1) * C))))).toBeLessThan(1e-6);
  expect(() => table({ prompt_tuning_init: 'TEXT', prompt_tuning_init_text: ' ' }, () => new Int32Array(0))).toThrow('tuner.prompt_tuning_init_text: has no tokens');
});

test('virtual tokens need memory', () => {
  const shape = { model: describeCausalLm(JSON.parse('{"model_type":"gpt2","vocab_size":64,"n_embd":32,"n_layer":2,"n_head":4,"n_positions":64}')), computeDtype: 'f32', rows: 2, columns: 16 } as const;
  const bytes = (tokens: number) => estimateMemory({ ...shape, spec: parseTunerSpec({ kind: 'prompt-tuning', num_virtual_tokens: tokens }) });
  expect(bytes(16).activationBytes).toBeGreaterThan(bytes(8).activationBytes);
  expect(bytes(16).adapterBytes).toBe(16 * 32 * 4);
});

test.each([
  [{ kind: 'prompt-tuning', num_virtual_tokens: 0 }, 'tuner.num_virtual_tokens'],
  [{ kind: 'prompt-tuning', prompt_tuning_init: 'TEXT' }, 'tuner.prompt_tuning_init_text: is needed'],
  [{ kind: 'prompt-tuning', prompt_tuning_init_text: 'a' }, 'tuner.prompt_tuning_init_text: is used with prompt_tuning_init "TEXT" only'],
  [{ kind: 'prompt-tuning', r: 8 }, 'tuner.r: is not a field of prompt tuning; the fields are num_virtual_tokens, prompt_tuning_init, prompt_tuning_init_text'],
  [{ kind: 'prefix-tuning', encoder_hidden_size: 8 }, 'tuner.encoder_hidden_size: is the width of the MLP of prefix_projection'],
  [{ kind: 'prefix-tuning', init_weights: 'one' }, 'tuner.init_weights: must be "zero" or null'],
  [{ kind: 'p-tuning', encoder_reparameterization_type: 'LSTM' }, 'tuner.encoder_reparameterization_type: must be "MLP"'],
  [{ kind: 'p-tuning', encoder_dropout: 0.1 }, 'tuner.encoder_dropout: must be 0'],
])('%j is refused', (fields, message) => {
  expect(() => parseTunerSpec(fields)).toThrow(message);
});

test('kinds alone, and fields that PEFT fills in, are fine', () => {
  for (const kind of ['prompt-tuning', 'prefix-tuning', 'p-tuning'] as const) expect(parseTunerSpec({ kind, token_dim: null, modules_to_save: null })).toEqual(parseTunerSpec({ kind, num_virtual_tokens: 20 }));
});

describe('folders that do not fit are refused', () => {
  let model: CausalLm;
  beforeAll(async () => {
    model = await openBase('tied');
  });
  afterAll(() => model[Symbol.dispose]());

  async function changed(method: Method, base: string, change: Record<string, unknown>, tensors?: readonly { name: string; shape: readonly number[] }[]): Promise<string> {
    const folder = await mkdtemp(join(work, 'changed-'));
    await cp(folderOf(method, base), folder, { recursive: true });
    const path = join(folder, 'adapter_config.json');
    await writeFile(path, JSON.stringify({ ...(JSON.parse(await readFile(path, 'utf8')) as object), ...change }));
    if (tensors) await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors(tensors.map(({ name, shape }) => ({ name, shape, dtype: 'F32', data: new Uint8Array(4 * shape.reduce((product, size) => product * size, 1)) }))));
    return folder;
  }

  test.each([
    ['prompt-tuning', {}, [{ name: 'prompt_embeddings', shape: [5, 16] }], '"prompt_embeddings" is [5, 16], which would have to be [5, 32] for this llama model; it was made for another base model (tiny/tied)'],
    ['prompt-tuning', {}, [{ name: 'prompt_embeddings', shape: [5, 32] }, { name: 'score.weight', shape: [1] }], 'tensors that are not known: score.weight'],
    ['prompt-tuning', {}, [], 'it holds no tensor "prompt_embeddings"'],
    ['prompt-tuning', { num_virtual_tokens: 6 }, undefined, 'which would have to be [6, 32]'],
    ['prompt-tuning', { num_virtual_tokens: 1e9 }, undefined, 'num_virtual_tokens'],
    ['prompt-tuning', { task_type: 'SEQ_CLS' }, undefined, 'task_type: must be "CAUSAL_LM"'],
    ['prompt-tuning', { num_transformer_submodules: 2 }, undefined, 'num_transformer_submodules: must be 1'],
    ['prompt-tuning', { modules_to_save: ['lm_head'] }, undefined, 'modules_to_save: must be empty'],
    ['prefix-tuning', { num_attention_heads: 4 }, undefined, 'num_attention_heads is 4, which would have to be 2'],
    ['prefix-tuning', { prefix_projection: 'yes' }, undefined, 'prefix_projection'],
    ['p-tuning', { num_layers: 3 }, undefined, 'num_layers is 3, which would have to be 2'],
  ] as const)('%s with %j', async (method, change, tensors, message) => {
    await expect(loadAdapter(model, await changed(method, 'tied', change, tensors))).rejects.toMatchObject({ code: 'incompatible_artifact', message: expect.stringContaining(message) as string });
  });

  test('numbers that are not finite', async () => {
    const folder = await changed('prompt-tuning', 'tied', {});
    const table = new Float32Array(5 * 32).fill(1, 0, 99).fill(NaN, 99, 100);
    await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors([{ name: 'prompt_embeddings', dtype: 'F32', shape: [5, 32], data: new Uint8Array(table.buffer) }]));
    await expect(loadAdapter(model, folder)).rejects.toThrow('holds numbers that are not finite');
  });

  test('an encoder that cannot be trained here can be used; fields of later versions are named', async () => {
    const adapter = await loadAdapter(model, await changed('p-tuning', 'tied', { encoder_reparameterization_type: 'LSTM', encoder_num_layers: 3, some_new_field: 1 }));
    expect(adapter.notices).toEqual([expect.stringContaining('some_new_field')]);
    const golden = goldenOf('p-tuning', 'tied');
    expect(maxDifference(logitsWith(model, golden.batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    adapter.dispose();
  });

  test('an adapter of another model', async () => {
    await expect(loadAdapter(model, folderOf('prefix-tuning', 'gpt2'))).rejects.toThrow('token_dim is 32, which would have to be 16 for this llama model; it was made for another base model (tiny/gpt2)');
  });
});
