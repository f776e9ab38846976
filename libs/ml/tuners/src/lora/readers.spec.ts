/** LoRA folders of PEFT with every option, and spelled as other versions spell them, give PEFT's logits here (fixtures of `tools/golden/lora_readers_fixture.py`). */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import type { CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits } from '@tunefleet/ml-tensor';
import { loadAdapter } from '..';
import { fixture, maxDifference, openBase } from './golden-run';

const cases = readdirSync(fixture('peft-readers')).sort();
const models = new Map<string, Promise<CausalLm>>();
let work = '';
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'lora-readers-'));
});
afterAll(async () => {
  for (const model of models.values()) (await model)[Symbol.dispose]();
  rmSync(work, { recursive: true, force: true });
});

function baseOf(folder: string): Promise<CausalLm> {
  const base = readFileSync(join(folder, 'base.txt'), 'utf8').trim();
  const model = models.get(base) ?? openBase(base, 'tensorflow');
  models.set(base, model);
  return model;
}

test.each(cases)('%s', async (name) => {
  const folder = join(fixture('peft-readers'), name);
  const model = await baseOf(folder);
  const { device } = model;
  using golden = SafetensorsFile.open(join(folder, 'golden.safetensors'));
  const ids = new Int32Array(golden.read('ids').slice().buffer);
  const wanted = new Float32Array(golden.read('logits').slice().buffer);
  const logits = (hook: ModelHook | null) => device.scope(() => device.readFloats(headLogits(model.forward({ ids, rows: 1, columns: ids.length }, { adapter: hook }), headOf(model, hook))));
  const handles = () => device.memory.liveHandles - device.cachedScalars;
  const alone = logits(null);
  const before = handles();
  const adapter = await loadAdapter(model, folder);
  const found = logits(adapter.hook);
  expect(maxDifference(found, wanted)).toBeLessThan(2e-4);
  expect(maxDifference(alone, wanted)).toBeGreaterThan(0.01);
  expect(adapter.notices.filter((notice) => !notice.includes("base model's own table"))).toEqual(name === 'dora-suffix' ? [expect.stringContaining('brand_new_option')] : []);
  await adapter.tuner.save(adapter.values, join(work, name), { id: 'tiny', revision: 'local' });
  adapter.dispose();
  const again = await loadAdapter(model, join(work, name));
  expect(logits(again.hook)).toEqual(found);
  again.dispose();
  expect(handles()).toBe(before);
});
