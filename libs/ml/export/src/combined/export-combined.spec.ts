import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readAdapterFiles } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import type { ModelHook } from '@tunefleet/ml-nn';
import { headLogits, openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';
import { exportCombined } from './export-combined';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const folder = join(libraries, 'models', 'fixtures', 'qwen2');
const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
const of = (name: string) => join(libraries, 'tuners', 'fixtures', 'combined', name);
const base = { id: 'tiny/qwen2', revision: null, folder, config };
const plain = { combination: 'cat', density: null, rank: null, seed: 0 } as const;

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'combined-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

test('the folder is a LoRA that computes the weighted sum', async () => {
  expect(await exportCombined(join(work, 'cat'), { base, ...plain, adapters: [{ folder: of('a'), weight: 1 }, { folder: of('b'), weight: 0 }] })).toBe(6);
  expect((await readAdapterFiles(join(work, 'cat'))).config).toMatchObject({ peft_type: 'LORA', r: 6, lora_alpha: 6, base_model_name_or_path: 'tiny/qwen2' });
  using model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config, computeDtype: 'f32' });
  const [whole, alone] = [await loadAdapter(model, join(work, 'cat')), await loadAdapter(model, of('a'))];
  const [got, wanted, untuned] = [logits(model, whole.hook), logits(model, alone.hook), logits(model, null)];
  const apart = (x: Float32Array, y: Float32Array) => x.reduce((most, value, index) => Math.max(most, Math.abs(value - (y[index] ?? NaN))), 0);
  expect(apart(got, wanted)).toBeLessThan(1e-5);
  expect(apart(got, untuned)).toBeGreaterThan(1e-3);
  whole.dispose();
  alone.dispose();
});

test('other adapters than LoRA are refused', async () => {
  const adapters = [{ folder: of('a'), weight: 1 }, { folder: join(libraries, 'tuners', 'fixtures', 'peft-ia3'), weight: 1 }];
  await expect(exportCombined(join(work, 'ia3'), { base, ...plain, adapters })).rejects.toThrow(/peft_type "IA3"; wanted is "LORA"/);
});

function logits(model: CausalLm, hook: ModelHook | null): Float32Array {
  const ids = Int32Array.from({ length: 12 }, (_, index) => (index * 17 + 5) % 64);
  return model.device.scope(() => model.device.readFloats(headLogits(model.forward({ ids, rows: 1, columns: 12 }, { adapter: hook }), model.head)));
}
