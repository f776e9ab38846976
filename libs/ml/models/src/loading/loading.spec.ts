/** What loading says about models that do not fit, and what a configuration alone tells. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isTunefleetError } from '@tunefleet/foundation';
import { encodeSafetensors, f32ToF16, type TensorInMemory } from '@tunefleet/ml-formats';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { decoderWeights } from '../decoder/weight-table';
import { parseLlama } from '../llama/spec';
import { describeCausalLm } from '../specs';
import { goldenModel, loadGolden, logitsOf, maxDifference } from '../testing';
import { loadCausalLm } from './load-causal-lm';

const CONFIG = { model_type: 'llama', vocab_size: 12, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true };
const SMOL = { model_type: 'llama', vocab_size: 49152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9, num_key_value_heads: 3, tie_word_embeddings: true, max_position_embeddings: 8192 };

let work = '';
let device: Device;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'loading-'));
  device = await openDevice({ backend: 'tensorflow' });
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** A model of small regular numbers that F16 holds exactly. */
function tensors(dtype: 'F32' | 'F16' = 'F32'): TensorInMemory[] {
  return decoderWeights(parseLlama(CONFIG)).map(({ name, shape }, index) => {
    const values = Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, (_, i) => (((i + index) % 7) - 3) / 4);
    const data = dtype === 'F32' ? new Uint8Array(values.buffer) : new Uint8Array(Uint16Array.from(values, f32ToF16).buffer);
    return { name, dtype, shape, data };
  });
}

async function folderOf(name: string, content: readonly TensorInMemory[]): Promise<string> {
  const folder = join(work, name);
  await mkdir(folder);
  await writeFile(join(folder, 'model.safetensors'), encodeSafetensors(content));
  return folder;
}

const load = (folder: string, more: Partial<Parameters<typeof loadCausalLm>[1]> = {}) => loadCausalLm(device, { folder, config: CONFIG, computeDtype: 'f32', ...more });

test('F16 weights give what F32 weights give; progress is told', async () => {
  const progress: number[] = [];
  using wide = await load(await folderOf('f32', tensors()), { onProgress: (done, total) => progress.push(done / total) });
  using half = await load(await folderOf('f16', tensors('F16')));
  const batch = { ids: Int32Array.of(1, 5, 11), rows: 1, columns: 3 };
  expect(maxDifference(logitsOf(wide, batch), logitsOf(half, batch))).toBe(0);
  expect(progress).toHaveLength(11);
  expect(progress.at(-1)).toBe(1);
});

test('a missing tensor, a wrong shape, tensors too many', async () => {
  const whole = tensors();
  await expectError(load(await folderOf('missing', whole.slice(2))), 'missing_tensor', "the model's weights lack 2 tensors: model.embed_tokens.weight, model.layers.0.input_layernorm.weight");
  const turned = whole.map((tensor) => (tensor.name.endsWith('gate_proj.weight') ? { ...tensor, shape: [8, 16] } : tensor));
  await expectError(load(await folderOf('turned', turned)), 'wrong_shape', 'tensor "model.layers.0.mlp.gate_proj.weight" has shape [8, 16], but config.json asks for [16, 8]');
  const notices: string[] = [];
  const extra = { name: 'model.vision.weight', dtype: 'F32' as const, shape: [1], data: new Uint8Array(4) };
  const redundant = { ...extra, name: 'model.layers.0.self_attn.rotary_emb.inv_freq' };
  using model = await load(await folderOf('extra', [...whole, extra, redundant]), { onNotice: (message) => notices.push(message) });
  expect(model.vocabSize).toBe(12);
  expect(notices).toEqual(["the model's files hold 1 tensor: model.vision.weight; this architecture does not use them"]);
});

test('a failed or aborted load leaves nothing on the device', async () => {
  const before = device.memory.liveHandles - device.cachedScalars;
  const controller = new AbortController();
  const aborted = load(await folderOf('aborted', tensors()), { signal: controller.signal, onProgress: (done) => done === 4 && controller.abort() });
  await expect(aborted).rejects.toThrow('aborted');
  expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  (await load(join(work, 'aborted')))[Symbol.dispose]();
  expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
});

test.each([
  [{ ...CONFIG, model_type: 'mamba' }, 'unsupported_architecture', 'model_type "mamba"; supported: llama'],
  [{}, 'unsupported_architecture', 'no model_type'],
  [{ ...CONFIG, hidden_act: 'gelu' }, 'bad_model_config', 'hidden_act: only the "silu" activation is supported'],
  [{ ...CONFIG, num_attention_heads: 3, head_dim: 4, num_key_value_heads: 2 }, 'bad_model_config', 'must be a multiple of num_key_value_heads'],
  [{ ...CONFIG, rope_scaling: { rope_type: 'yarn', factor: 2 } }, 'bad_model_config', 'rope_scaling.rope_type: rope_type "yarn" is not supported'],
])('config.json %j is refused', async (config, reason, message) => {
  await expectError(loadCausalLm(device, { folder: work, config, computeDtype: 'f32' }), reason, message);
});

test('bf16 on a device without it is refused', async () => {
  const wasm = await openDevice({ backend: 'wasm' });
  await expect(loadGolden(wasm, goldenModel('tied'), 'bf16')).rejects.toThrow('the wasm backend cannot compute in bf16; choose f32');
});

test('a description needs no weights', () => {
  const description = describeCausalLm(SMOL);
  expect(description).toMatchObject({ modelType: 'llama', vocabSize: 49152, hiddenSize: 576, layers: 30, maxPositions: 8192, parameterCount: 134_515_008 });
  expect(description.projections).toHaveLength(210);
  expect(description.projections[1]).toEqual({ path: 'model.layers.0.self_attn.k_proj', inSize: 576, outSize: 192 });
});

async function expectError(promise: Promise<unknown>, reason: string, message: string): Promise<void> {
  const error: unknown = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!isTunefleetError(error)) throw new Error(`expected a refusal, got ${String(error)}`);
  expect({ code: error.code, reason: error.reason }).toEqual({ code: 'incompatible_artifact', reason });
  expect(error.message).toContain(message);
}
