/** What is GPT-2's own: names of the first published files, and positions that end. Numbers are in `decoder/decoders.spec.ts`. */
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeSafetensors, SafetensorsFolder } from '@tunefleet/ml-formats';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadCausalLm } from '../loading/load-causal-lm';
import { goldenModel, loadGolden, logitsOf, maxDifference } from '../testing';

const golden = goldenModel('gpt2');

test('tensors without the prefix "transformer." are found, stored masks are passed over', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const folder = await mkdtemp(join(tmpdir(), 'gpt2-'));
  try {
    using files = SafetensorsFolder.open(golden.folder);
    const tensors = files.names().map((name) => ({ ...files.entry(name), name: name.replace(/^transformer\./, ''), data: files.read(name).slice() }));
    const mask = { name: 'h.0.attn.bias', dtype: 'F32' as const, shape: [1], data: new Uint8Array(4) };
    await cp(join(golden.folder, 'config.json'), join(folder, 'config.json'));
    await writeFile(join(folder, 'model.safetensors'), encodeSafetensors([...tensors.map(({ name, dtype, shape, data }) => ({ name, dtype, shape, data })), mask]));
    const notices: string[] = [];
    using model = await loadCausalLm(device, { folder, config: golden.config, computeDtype: 'f32', onNotice: (message) => notices.push(message) });
    expect(maxDifference(logitsOf(model, { ids: golden.ids, rows: 2, columns: 24 }), golden.logits)).toBeLessThan(1e-4);
    expect(notices).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('positions beyond the learned ones are refused, also inside a packed row', async () => {
  using model = await loadGolden(await openDevice({ backend: 'tensorflow' }), golden);
  const columns = 70;
  const batch = { ids: new Int32Array(columns), rows: 1, columns, segments: new Int32Array(columns).fill(1), positions: Int32Array.from({ length: columns }, (_, i) => i) };
  expect(() => model.forward(batch)).toThrow('longer than the 64 positions this model has learned');
});
