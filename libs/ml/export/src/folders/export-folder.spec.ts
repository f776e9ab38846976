import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { adapterRoot, readAdapterFiles } from '@tunefleet/ml-formats';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';
import { exportPeft, exportSwift } from './export-folder';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'tuners', 'fixtures');
const lora = join(fixtures, 'architectures', 'qwen2');
const side = join(fixtures, 'swift-adapter');

const one = (source: string) => new Map([['default', source]]);

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'folders-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

test('a LoRA in the layout of SWIFT holds the same numbers under names with the adapter in them', async () => {
  await exportSwift(one(lora), join(work, 'swift'));
  const [theirs, ours] = [await readAdapterFiles(lora), await readAdapterFiles(join(work, 'swift', 'default'))];
  expect(ours.config).toMatchObject({ swift_type: 'LORA', r: 2, lora_alpha: 3, use_qa_lora: false, model_key_mapping: null });
  expect(ours.config).not.toHaveProperty('peft_type');
  const renamed = (name: string) => name.replace('base_model.model.', '').replace(/\.weight$/, '.default.weight');
  expect(new Map(ours.tensors.map(({ name, data }) => [name, Buffer.from(data).toString('hex')]))).toEqual(new Map(theirs.tensors.map(({ name, data }) => [renamed(name), Buffer.from(data).toString('hex')])));
  expect(await readFile(join(work, 'swift', 'configuration.json'), 'utf8')).toBe('{}');
});

test('a LoRA in the layout of SWIFT is read like the one in the layout of PEFT', async () => {
  await exportSwift(one(lora), join(work, 'again'));
  const base = join(fixtures, '..', '..', 'models', 'fixtures', 'qwen2');
  using model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')), computeDtype: 'f32' });
  const [theirs, ours] = [await loadAdapter(model, lora), await loadAdapter(model, join(work, 'again'))];
  expect(ours.values).toEqual(theirs.values);
  expect(ours.notices).toEqual(theirs.notices);
  theirs.dispose();
  ours.dispose();
});

test('a PEFT folder is written again with the same bytes of weights', async () => {
  await exportPeft(one(lora), join(work, 'peft'));
  expect(await readFile(join(work, 'peft', 'adapter_model.safetensors'))).toEqual(await readFile(join(lora, 'adapter_model.safetensors')));
  expect((await readAdapterFiles(join(work, 'peft'))).config).toEqual((await readAdapterFiles(lora)).config);
});

test('adapters that were saved together are written together again, by either library', async () => {
  const roots = join(fixtures, 'adapter-roots');
  const swift = adapterRoot(join(roots, 'swift'));
  await exportSwift(swift.adapters, join(work, 'swift-root'), swift.extraStates);
  await exportPeft(adapterRoot(join(roots, 'peft')).adapters, join(work, 'peft-root'));
  for (const [root, folders] of [['swift', ['a', 'ab', 'extra_states']], ['peft', ['', 'other']]] as const) {
    for (const folder of folders) {
      const [theirs, ours] = [await readAdapterFiles(join(roots, root, folder)), await readAdapterFiles(join(work, `${root}-root`, folder))];
      expect([root, folder, ours]).toEqual([root, folder, theirs]);
    }
  }
  // SWIFT chooses by beginnings of names; here each folder holds its own.
  await exportSwift(new Map([['x', join(roots, 'swift', 'ab')], ['xy', lora]]), join(work, 'renamed'));
  expect((await readAdapterFiles(join(work, 'renamed', 'x'))).tensors.map(({ name }) => name)).toContain('model.layers.1.mlp.adapter_x.linear1.weight');
  expect((await readAdapterFiles(join(work, 'renamed', 'xy'))).tensors.every(({ name }) => name.includes('.xy.'))).toBe(true);
});

test('what has no such layout is refused and leaves nothing behind', async () => {
  await expect(exportPeft(one(side), join(work, 'none'))).rejects.toThrow(/PEFT has no tuner of type "ADAPTER"; use --format swift/);
  await expect(exportSwift(one(join(fixtures, 'peft-ia3')), join(work, 'none'))).rejects.toThrow(/SWIFT has no layout of its own for "IA3"/);
  await expect(exportSwift(one(lora), fixtures)).rejects.toMatchObject({ code: 'conflict' });
  expect(existsSync(join(work, 'none'))).toBe(false);
});
