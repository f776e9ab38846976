/**
 * Ten steps of AdamW with virtual tokens against the same run in torch with PEFT's and SWIFT's modules (`tools/golden/{virtual_tokens,deep_prompt}_fixture.py`):
 * the loss of every step and what the parameters end as.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import { Trainer } from './trainer';
import { startState } from './trainer-state';

jest.setTimeout(60_000);

const libraries = fileURLToPath(new URL('../../', import.meta.url));
const num_virtual_tokens = 5;

const RUNS = [
  ['virtual-tokens/prompt-tuning', 'tied', { kind: 'prompt-tuning', num_virtual_tokens }],
  ['virtual-tokens/prefix-tuning', 'tied', { kind: 'prefix-tuning', num_virtual_tokens }],
  ['virtual-tokens/prefix-projection', 'tied', { kind: 'prefix-tuning', num_virtual_tokens, prefix_projection: true, encoder_hidden_size: 12 }],
  ['virtual-tokens/p-tuning', 'tied', { kind: 'p-tuning', num_virtual_tokens, encoder_hidden_size: 24 }],
  ['deep-prompt-tuning', 'gpt2', { kind: 'deep-prompt-tuning', prompt_length: 5 }],
] as const;

describe.each(RUNS)('%s on %s', (fixture, base, fields) => {
  const read = (name: string): ArrayBuffer => {
    using file = SafetensorsFile.open(`${libraries}tuners/fixtures/${fixture}/${base}/golden.safetensors`);
    return file.read(name).slice().buffer as ArrayBuffer;
  };
  const floats = (name: string) => new Float32Array(read(name));
  const columns = 20;
  const dataset = new PackedDataset('golden', {
    lengths: Int32Array.of(columns, columns),
    ids: new Int32Array(read('ids')),
    learned: Uint8Array.from(new Int32Array(read('labels')), (label) => (label === -100 ? 0 : 1)),
  });

  it.each([
    ['tensorflow', 2, false],
    ['tensorflow', 1, true],
    ['wasm', 2, false],
  ] as const)('on %s, %i examples per pass, recomputeBlocks %p', async (backend, microBatchSize, recomputeBlocks) => {
    const folder = `${libraries}models/fixtures/${base}`;
    using model = await loadCausalLm(await openDevice({ backend }), { folder, config: JSON.parse(readFileSync(`${folder}/config.json`, 'utf8')), computeDtype: 'f32' });
    const tuner = createTuner(parseTunerSpec(fields), model);
    const all = (prefix: string) => Float32Array.from(tuner.parameters.flatMap(({ name }) => [...floats(`${prefix}.${name}`)]));
    const state = startState(all('value'));
    const losses = floats('losses');
    const trainer = new Trainer({
      model,
      tuner,
      dataset,
      settings: { learningRate: 1e-2, warmupRatio: 0, weightDecay: 0.01, maxGradNorm: 1e9, schedule: 'constant', seed: 1, epochs: losses.length, batchSize: 2 },
      batching: { microBatchSize, recomputeBlocks },
      state,
    });
    for (const expected of losses) {
      const step = await trainer.trainStep();
      expect(Math.abs((step?.loss ?? NaN) - expected)).toBeLessThan(5e-5);
    }
    const final = all('final');
    const moved = final.reduce((most, value, i) => Math.max(most, Math.abs(value - (state.values[i] ?? NaN))), 0);
    // AdamW divides by the size of the gradient, so where that is next to nothing, rounding decides the direction.
    expect(moved).toBeLessThan(2e-3);
    expect(trainer.finished).toBe(true);
  });
});
