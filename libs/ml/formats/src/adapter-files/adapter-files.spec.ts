import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapterRoot, inPeftForm, readAdapterFiles, writeAdapterFiles, type AdapterTensor } from './index';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'adapter-files-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const tensor = (name: string): AdapterTensor => ({ name, dtype: 'F32', shape: [1], data: new Uint8Array(4) });
const write = (at: string, config: object, names: readonly string[] = ['a']) => writeAdapterFiles(at, { config: JSON.stringify(config), tensors: names.map(tensor), card: '' });

test('a folder with one adapter in it, as SWIFT writes it, is that adapter', async () => {
  await write(join(folder, 'default'), { swift_type: 'ADAPTER' });
  writeFileSync(join(folder, 'configuration.json'), '{}');
  mkdirSync(join(folder, 'runs'));
  expect(await readAdapterFiles(folder)).toMatchObject({ config: { swift_type: 'ADAPTER' }, tensors: [{ name: 'a' }] });
  await write(join(folder, 'other'), { swift_type: 'SIDE' });
  await expect(readAdapterFiles(folder)).rejects.toThrow('holds the adapters default, other; name the folder of one of them');
  await write(join(folder, 'extra_states'), { extra_state_keys: [] });
  await expect(readAdapterFiles(folder)).rejects.toThrow('extra_states, parameters of the base that were trained along with default, other');
  expect(adapterRoot(folder)).toEqual({ adapters: new Map(['default', 'other'].map((name) => [name, join(folder, name)])), extraStates: join(folder, 'extra_states') });
});

test('the folder of an adapter of SWIFT whose name begins another one', async () => {
  await write(join(folder, 'a'), { swift_type: 'ADAPTER' }, ['mlp.adapter_a.linear1.bias', 'mlp.adapter_ab.linear1.bias']);
  expect((await readAdapterFiles(join(folder, 'a'))).tensors.map(({ name }) => name)).toEqual(['mlp.adapter_a.linear1.bias']);
});

test('adapters of PEFT side by side: the default one in the root', async () => {
  await write(folder, { peft_type: 'LORA' });
  await write(join(folder, 'other'), { peft_type: 'IA3' });
  await write(join(folder, 'checkpoint-20'), { peft_type: 'LORA' });
  expect([...adapterRoot(folder).adapters]).toEqual([['default', folder], ['other', join(folder, 'other')]]);
  expect((await readAdapterFiles(folder)).config).toEqual({ peft_type: 'LORA' });
});

test('what is no adapter folder', async () => {
  await expect(readAdapterFiles(folder)).rejects.toThrow('has no adapter_config.json');
  await expect(readAdapterFiles(join(folder, 'absent'))).rejects.toThrow('has no adapter_config.json');
});

test('a LoRA of SWIFT in the form of PEFT', () => {
  const swift = { swift_type: 'LORA', r: 4, use_qa_lora: false, use_merged_linear: false, enable_lora: null, lora_dtype: 'fp16', lorap_lr_ratio: 16, lorap_emb_lr: 1e-6, model_key_mapping: null };
  const tensors = [tensor('q.lora_A.default.weight'), tensor('q.lora_B.default.weight')];
  expect(inPeftForm({ config: swift, tensors })).toEqual({ config: { peft_type: 'LORA', r: 4 }, tensors });
  expect(inPeftForm({ config: { swift_type: 'SIDE' }, tensors })).toEqual({ config: { swift_type: 'SIDE' }, tensors });
  expect(() => inPeftForm({ config: { ...swift, use_merged_linear: true }, tensors })).toThrow('use_merged_linear = true, which is not supported');
  expect(() => inPeftForm({ config: swift, tensors: [...tensors, tensor('q.lora_A.more.weight')] })).toThrow('the tensors of 2 adapters: default, more');
});
