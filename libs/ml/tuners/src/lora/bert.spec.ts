/** LoRA on BERT's classifier against PEFT (fixture of `tools/golden/bert_fixture.py`): logits, loss, every gradient. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadBert, type EncoderBatch } from '@tunefleet/ml-models';
import { gradients, openDevice, singleOutputOp, type Tensor } from '@tunefleet/ml-tensor';
import { loadAdapter, matchProjections, tunerSpecs } from '..';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const BASE = join(libraries, 'models', 'fixtures', 'bert');
const ADAPTER = join(libraries, 'tuners', 'fixtures', 'bert');
const [rows, columns] = [3, 12];

test.each([
  ['tensorflow', false],
  ['tensorflow', true],
  ['wasm', false],
] as const)('logits, loss and every gradient are those of PEFT on %s, recomputeBlocks %p', async (backend, recomputeBlocks) => {
  const device = await openDevice({ backend });
  const config: unknown = JSON.parse(readFileSync(join(BASE, 'config.json'), 'utf8'));
  using model = await loadBert(device, { folder: BASE, config, computeDtype: 'f32' });
  const adapter = await loadAdapter(model, ADAPTER);
  const usual = matchProjections(tunerSpecs.lora.parse({ kind: 'lora' }), model).map(({ path }) => path.split('.').at(-1));
  expect(usual).toEqual(['query', 'value', 'query', 'value']);

  using inputs = SafetensorsFile.open(join(BASE, 'golden.safetensors'));
  using golden = SafetensorsFile.open(join(ADAPTER, 'golden.safetensors'));
  const integers = (file: SafetensorsFile, name: string) => new Int32Array(file.read(name).slice().buffer);
  const floats = (name: string) => new Float32Array(golden.read(name).slice().buffer);
  const batch: EncoderBatch = { ids: integers(inputs, 'ids'), rows, columns, lengths: integers(inputs, 'lengths'), tokenTypes: integers(inputs, 'types') };
  device.scope(() => {
    expectClose(device.readFloats(model.classify(batch, { adapter: adapter.hook })), floats('logits'), 1e-4);
    let at = 0;
    const parameters = adapter.tuner.parameters.map(({ shape }) => {
      const size = shape.reduce((product, each) => product * each, 1);
      return device.tensor(adapter.values.slice(at, (at += size)), shape, 'f32');
    });
    const hook = adapter.tuner.bind(model, parameters, null);
    const { result, gradients: got } = gradients(device, parameters, () => ({ loss: meanCrossEntropy(model.classify(batch, { adapter: hook, recomputeBlocks }), integers(golden, 'labels')) }));
    expectClose(device.readFloats(result.loss), floats('loss'), 1e-5);
    expect(adapter.tuner.parameters).toHaveLength(2 * (2 * 5 + 1));
    adapter.tuner.parameters.forEach(({ name, shape: [rank = 0, width = 0] }, index) => {
      const values = device.readFloats(got[index] as Tensor);
      const inFile = name.endsWith('lora_B.weight') ? Float32Array.from(values, (_, i) => values[(i % rank) * width + Math.floor(i / rank)] ?? NaN) : values;
      const wanted = floats(`grad.${name}`);
      expectClose(inFile, wanted, 1e-5 + 2e-4 * Math.max(...wanted.map(Math.abs)));
      expect(Math.max(...wanted.map(Math.abs))).toBeGreaterThan(1e-4);
    });
  });
  adapter.dispose();
});

function meanCrossEntropy(logits: Tensor, labels: Int32Array): Tensor {
  const p = logits.device.primitives;
  return singleOutputOp(logits.device, {
    name: 'meanCrossEntropy',
    inputs: [logits],
    run: () => {
      const [loss, gradient] = p.softmaxCrossEntropy(logits, logits.device.tensor(labels, [labels.length], 'i32'));
      return { outputs: [p.scale(p.sumAll(loss), 1 / labels.length)], save: [gradient] };
    },
    backward: ({ gradients: [g], saved: [gradient] }) => [g && gradient ? p.mul(p.scale(gradient, 1 / labels.length), g) : null],
  });
}

function expectClose(got: Float32Array, wanted: Float32Array, tolerance: number): void {
  expect(got).toHaveLength(wanted.length);
  got.forEach((value, i) => expect(Math.abs(value - (wanted[i] ?? NaN))).toBeLessThan(tolerance));
}
