/** When what the blocks give a bypass is kept, and what the user is told. */
import { jest } from '@jest/globals';
import type { FineTuneSpec } from '@tunefleet/contracts';
import { PackedDataset } from '@tunefleet/ml-data';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { parseTunerSpec } from '@tunefleet/ml-tuners';
import type { OpenedModel } from '../runtime/engine-resources';
import type { JobContext } from '../runtime/job-context';
import { chooseKeepStems } from './keep-stems';

const CONFIG = { model_type: 'llama', vocab_size: 64, hidden_size: 100, intermediate_size: 16, num_hidden_layers: 9, num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true };
/** 50 rows of 100 learned tokens: with ten hidden states of 100 numbers 20 MB in f32. */
const dataset = new PackedDataset('d', { lengths: new Int32Array(50).fill(101), ids: new Int32Array(5050), learned: new Uint8Array(5050).fill(1) });
const STEP_BYTES = 100e6;

let device: Device;
beforeAll(async () => {
  device = await openDevice({ backend: 'wasm' });
});
afterEach(() => jest.restoreAllMocks());

function choose(change: { readonly tuner?: Record<string, unknown>; readonly epochs?: number; readonly before?: boolean | null; readonly available: number }): [boolean, string[]] {
  jest.spyOn(process, 'availableMemory').mockReturnValue(change.available);
  const logs: string[] = [];
  const context = { spec: { epochs: change.epochs ?? 2 } as FineTuneSpec, engine: { device }, events: { log: (_level: string, message: string) => logs.push(message) } } as unknown as JobContext<FineTuneSpec>;
  const opened = { config: CONFIG, computeDtype: 'f32' } as unknown as OpenedModel;
  const kept = chooseKeepStems(context, { opened, tuner: parseTunerSpec(change.tuner ?? { kind: 'restuning-bypass' }), datasets: [dataset], stepBytes: STEP_BYTES, before: change.before ?? null });
  return [kept, logs];
}

test('kept where half of what the step leaves is enough, and said', () => {
  expect(choose({ available: STEP_BYTES + 40e6 })).toEqual([true, ['the base model runs in the first epoch only: 20 MB of its hidden states are kept in memory, in f32']]);
  const [kept, logs] = choose({ available: STEP_BYTES + 39e6 });
  expect([kept, logs]).toEqual([false, ['the base model runs in every epoch: keeping its hidden states would take 20 MB, 19 MB are to spare. A larger stem_stride needs less.']]);
  expect(choose({ available: 1000 })[0]).toBe(false);
  expect(choose({ available: STEP_BYTES + 20e6, tuner: { kind: 'restuning-bypass', stem_stride: 3 } })[0]).toBe(true);
});

test('nothing to keep for one epoch, for other tuners, or where the run began without', () => {
  const available = STEP_BYTES + 1e9;
  expect(choose({ available, epochs: 1 })).toEqual([false, []]);
  expect(choose({ available, tuner: { kind: 'lora' } })).toEqual([false, []]);
  expect(choose({ available, before: false })).toEqual([false, []]);
});

test('a run that kept them and no longer can is told what that changes', () => {
  const [kept, logs] = choose({ available: STEP_BYTES, before: true });
  expect(kept).toBe(false);
  expect(logs[0]).toContain('The run kept them before it was stopped, so losses may differ in the last digits from here on.');
});
