/** When, and how much of, what the first blocks give is kept, and what the user is told. */
import { jest } from '@jest/globals';
import type { FineTuneSpec } from '@tunefleet/contracts';
import { PackedDataset } from '@tunefleet/ml-data';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import type { KeptStems } from '@tunefleet/ml-training';
import { parseTunerSpec } from '@tunefleet/ml-tuners';
import type { OpenedModel } from '../runtime/engine-resources';
import type { JobContext } from '../runtime/job-context';
import { chooseKeptStems } from './keep-stems';

const CONFIG = { model_type: 'llama', vocab_size: 64, hidden_size: 100, intermediate_size: 16, num_hidden_layers: 9, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true };
/** 50 rows of 100 learned tokens: with ten hidden states of 100 numbers 20 MB in f32. */
const dataset = new PackedDataset('d', { lengths: new Int32Array(50).fill(101), ids: new Int32Array(5050), learned: new Uint8Array(5050).fill(1) });
const STEP_BYTES = 100e6;

let device: Device;
beforeAll(async () => {
  device = await openDevice({ backend: 'wasm' });
});
afterEach(() => jest.restoreAllMocks());

interface Change {
  readonly tuner?: Record<string, unknown>;
  readonly spec?: Partial<FineTuneSpec>;
  readonly before?: number | null;
  readonly available: number;
  readonly diskBytes?: number;
}

function choose({ tuner = { kind: 'restuning-bypass' }, spec = {}, before = null, available, diskBytes = 0 }: Change): [KeptStems | null, string[]] {
  jest.spyOn(process, 'availableMemory').mockReturnValue(available);
  const logs: string[] = [];
  const context = { spec: { epochs: 2, ...spec } as FineTuneSpec, engine: { device }, outputDir: '/out', events: { log: (_level: string, message: string) => logs.push(message) } } as unknown as JobContext<FineTuneSpec>;
  const opened = { config: CONFIG, computeDtype: 'f32' } as unknown as OpenedModel;
  return [chooseKeptStems(context, { opened, tuner: parseTunerSpec(tuner), datasets: [dataset], stepBytes: STEP_BYTES, diskBytes, before }), logs];
}

const ROOM = STEP_BYTES + 1e9;
const MEMORY = { untouchedBlocks: 0, directory: null };

test('in memory where half of what the step leaves is enough, and said', () => {
  expect(choose({ available: STEP_BYTES + 40e6 })).toEqual([{ ...MEMORY, bytes: 20e6, hostBytes: 20e6 }, ['the base model runs in the first epoch only: 20 MB of hidden states are kept in memory, in f32']]);
  expect(choose({ available: ROOM, tuner: { kind: 'restuning-bypass', stem_stride: 3 } })[0]).toEqual({ ...MEMORY, bytes: 8e6, hostBytes: 8e6 });
});

test('then on disk, and what has no room there is computed again', () => {
  expect(choose({ available: STEP_BYTES + 10e6, diskBytes: 1e9 })).toEqual([
    { untouchedBlocks: 0, bytes: 20e6, hostBytes: 5e6, directory: '/out' },
    ['the base model runs in the first epoch only: 20 MB of hidden states are kept, 15 MB of them on disk, in f32'],
  ]);
  expect(choose({ available: STEP_BYTES + 10e6, diskBytes: 5e6 })).toEqual([
    { untouchedBlocks: 0, bytes: 10e6, hostBytes: 5e6, directory: '/out' },
    ['the base model runs again in later epochs for the examples there is no room for: 10 MB of hidden states are kept, 5 MB of them on disk, in f32, 20 MB would be all'],
  ]);
});

test('of tuners of the last blocks one state of every token, which enters the first of them', () => {
  const last = { kind: 'lora', layers_to_transform: [6, 7, 8], target_modules: ['q_proj', 'down_proj'] };
  const bytes = 5050 * 100 * 4;
  expect(choose({ available: ROOM, tuner: last })).toEqual([{ untouchedBlocks: 6, bytes, hostBytes: bytes, directory: null }, ['the first 6 of 9 blocks run in the first epoch only: 3 MB of hidden states are kept in memory, in f32']]);
  expect(choose({ available: ROOM, tuner: { ...last, kind: 'qlora' } })[0]?.untouchedBlocks).toBe(6);
  expect(choose({ available: ROOM, tuner: { kind: 'full', last_blocks: 1 } })[0]?.untouchedBlocks).toBe(8);
  expect(choose({ available: ROOM, tuner: { kind: 'adapter', target_modules: String.raw`.*\.[78]\.mlp` } })[0]?.untouchedBlocks).toBe(7);
  expect(choose({ available: ROOM, tuner: { ...last, modules_to_save: ['layers.5.post_attention_layernorm', 'model.norm'] } })[0]?.untouchedBlocks).toBe(5);
  // Behind the last block only tokens that carry loss count.
  expect(choose({ available: ROOM, tuner: { kind: 'lora', target_modules: ['lm_head'] } })[0]).toEqual({ untouchedBlocks: 9, bytes: 50 * 100 * 100 * 4, hostBytes: 50 * 100 * 100 * 4, directory: null });
});

test('nothing to keep for one epoch, where the first block or what enters it is changed, or where the run began without', () => {
  expect(choose({ available: ROOM, spec: { epochs: 1 } })).toEqual([null, []]);
  expect(choose({ available: ROOM, spec: { neftuneNoiseAlpha: 5 } })).toEqual([null, []]);
  expect(choose({ available: ROOM, before: 0 })).toEqual([null, []]);
  const last = { layers_to_transform: [8], target_modules: ['q_proj'] };
  for (const tuner of [{ kind: 'lora' }, { kind: 'full' }, { kind: 'prompt-tuning' }, { kind: 'lora', ...last, trainable_token_indices: [1] }, { kind: 'lora', ...last, modules_to_save: ['embed_tokens'] }, { kind: 'lora', ...last, modules_to_save: ['layers.0.input_layernorm'] }]) expect(choose({ available: ROOM, tuner })).toEqual([null, []]);
});

test('a run goes on with what it kept; one that no longer can is told what that changes', () => {
  expect(choose({ available: ROOM, before: 7e6 })[0]?.bytes).toBe(7e6);
  const [kept, logs] = choose({ available: STEP_BYTES + 2e6, before: 7e6 });
  expect(kept?.bytes).toBe(1e6);
  expect(logs[1]).toBe('the run kept more hidden states before it was stopped, so losses may differ in the last digits from here on');
});
