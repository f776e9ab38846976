/** LoRA on a base in 4 bits against PEFT on bitsandbytes (tools/golden/bitsandbytes_fixture.py), and the fields of the tuner. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isTunefleetError } from '@tunefleet/foundation';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { describeCausalLm, loadCausalLm } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, openDevice } from '@tunefleet/ml-tensor';
import { transposed, type LoraParameter } from '../lora/parameters';
import { estimateMemory } from '../memory-estimate';
import { createTuner } from '../registry';
import { parseTunerSpec } from '../spec-registry';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'models', 'fixtures');
const configOf = (name: string): unknown => JSON.parse(readFileSync(join(fixtures, name, 'config.json'), 'utf8'));
const [rows, columns] = [2, 12];

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  test.each(['nf4', 'fp4'])('%s: loss and every gradient on a base in 4 bits are those of PEFT and bitsandbytes', async (type) => {
    const name = `bitsandbytes-${type}`;
    const device = await openDevice({ backend });
    using model = await loadCausalLm(device, { folder: join(fixtures, name), config: configOf(name), computeDtype: 'f32' });
    using golden = SafetensorsFile.open(join(fixtures, name, 'golden.safetensors'));
    const floats = (key: string) => new Float32Array(golden.read(key).slice().buffer);
    const ids = new Int32Array(golden.read('ids').slice().buffer);
    const labels = Int32Array.from(ids, (_, i) => (i % columns === columns - 1 ? -100 : (ids[i + 1] as number)));
    const tuner = createTuner(parseTunerSpec({ kind: 'qlora', r: 2, lora_alpha: 4, target_modules: ['q_proj', 'v_proj', 'down_proj'] }), model);
    const given = (prefix: string, { name: key, shape: [rank = 0, size = 0], turned }: LoraParameter) => (turned ? transposed(floats(`${prefix}.${key}`), size, rank) : floats(`${prefix}.${key}`));
    const parameters = tuner.parameters as readonly LoraParameter[];
    expect(parameters).toHaveLength(12);

    const result = (recomputeBlocks: boolean) =>
      device.scope(() => {
        const tensors = parameters.map((parameter) => device.tensor(given('value', parameter).slice(), parameter.shape, 'f32'));
        const adapter = tuner.bind(model, tensors, null);
        const { result: loss, gradients: all } = gradients(device, tensors, () => headCrossEntropy(model.forward({ ids, rows, columns }, { adapter, recomputeBlocks }), headOf(model, adapter), labels, { scale: 1 / (rows * (columns - 1)) }));
        return { loss: device.readFloats(loss.loss)[0] as number, all: all.map((gradient) => gradient && device.readFloats(gradient)) };
      });
    const { loss, all } = result(false);
    expect(loss).toBeCloseTo(floats('loss')[0] as number, 5);
    for (const [i, parameter] of parameters.entries()) {
      const expected = given('gradient', parameter);
      const most = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
      const error = expected.reduce((largest, value, j) => Math.max(largest, Math.abs(value - (all[i]?.[j] ?? NaN))), 0);
      expect(most).toBeGreaterThan(0);
      expect(error).toBeLessThan(2e-5 * Math.max(1, most));
    }
    expect(result(true)).toEqual({ loss, all });
  });
});

test('by default every linear map, NF4, scales quantised too', () => {
  expect(parseTunerSpec({ kind: 'qlora' })).toMatchObject({ kind: 'qlora', r: 8, target_modules: 'all-linear', bnb_4bit_quant_type: 'nf4', bnb_4bit_use_double_quant: true });
  expect(parseTunerSpec(parseTunerSpec({ kind: 'qlora', use_dora: true, r: 4 }))).toMatchObject({ use_dora: true, r: 4 });
});

test.each([
  [{ bnb_4bit_quant_type: 'int4' }, 'bnb_4bit_quant_type', 'must be "nf4" or "fp4"'],
  [{ bnb_4bit_use_double_quant: 1 }, 'bnb_4bit_use_double_quant', 'expected boolean'],
  [{ rank: 4 }, 'rank', 'is not a field of LoRA'],
])('%j is refused', (fields, field, message) => {
  let refusal: unknown;
  try {
    parseTunerSpec({ kind: 'qlora', ...fields });
  } catch (error) {
    refusal = error;
  }
  if (!isTunefleetError(refusal)) throw new Error(`expected a refusal, got ${String(refusal)}`);
  expect(refusal).toMatchObject({ code: 'invalid_input', param: `tuner.${field}` });
  expect(refusal.message).toContain(message);
});

test('the estimate counts 4.13 bits for every weight of a linear map, or 4.5', () => {
  const model = describeCausalLm({ model_type: 'llama', vocab_size: 1000, hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 20, num_attention_heads: 8, num_key_value_heads: 8, tie_word_embeddings: true });
  const weights = (fields: object) => estimateMemory({ model, spec: parseTunerSpec({ kind: 'qlora', ...fields }), computeDtype: 'bf16', rows: 1, columns: 64 }).weightBytes;
  const elements = model.projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0);
  const rest = 2 * (model.parameterCount - elements);
  expect((8 * (weights({}) - rest)) / elements).toBeCloseTo(4.127, 3);
  expect((8 * (weights({ bnb_4bit_use_double_quant: false }) - rest)) / elements).toBeCloseTo(4.5, 6);
  expect((weights({}) - rest) / (2 * elements)).toBeLessThan(0.3);
});
