/** What a step is foretold to take against what the device counts during one. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, parseTunerSpec, specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { StepMemory } from './step-memory';
import { Trainer } from './trainer';
import { startState } from './trainer-state';

jest.setTimeout(60_000);

const COLUMNS = 128;

const LORA = { kind: 'lora', r: 4, target_modules: 'all-linear' } as const;
const PROMPT = { kind: 'prompt-tuning', num_virtual_tokens: 32 } as const;
const PREFIX = { kind: 'prefix-tuning', num_virtual_tokens: 32 } as const;
const FULL = { kind: 'full' } as const;
const QLORA = { kind: 'qlora', r: 4, lora_dropout: 0.1 } as const;
const DORA = { kind: 'lora', r: 4, use_dora: true } as const;
const BYPASS = { kind: 'restuning-bypass' } as const;
const DEEP_PROMPT = { kind: 'deep-prompt-tuning', prompt_length: 32 } as const;

it.each([
  ['f32', 4, false, LORA],
  ['f32', 2, true, LORA],
  ['bf16', 4, false, LORA],
  ['f32', 4, false, PROMPT],
  ['f32', 2, true, PROMPT],
  ['bf16', 4, false, PREFIX],
  ['f32', 2, true, PREFIX],
  ['f32', 4, false, DEEP_PROMPT],
  ['bf16', 2, true, FULL],
  ['f32', 4, false, QLORA],
  ['bf16', 4, false, DORA],
  ['f32', 4, false, BYPASS],
] as const)('%s, %i rows, recompute %p, %j', async (computeDtype, microBatchSize, recomputeBlocks, fields) => {
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-memory-'));
  try {
    await writeTinyModel(folder, { hiddenSize: 64, layers: 4 });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as unknown;
    const device = await openDevice({ backend: 'tensorflow' });
    const spec: TunerSpec = parseTunerSpec(fields);
    const precision = { computeDtype, weightDtype: computeDtype, quantisation: specHalfOf(spec).baseQuantisation?.(spec) ?? null };
    using model = await loadCausalLm(device, { folder, config, ...precision });
    const tuner = createTuner(spec, model);
    const batching = { microBatchSize, recomputeBlocks };
    const trainer = new Trainer({
      model,
      tuner,
      dataset: new PackedDataset('even', { lengths: new Int32Array(4).fill(COLUMNS), ids: new Int32Array(4 * COLUMNS).fill(65), learned: new Uint8Array(4 * COLUMNS).fill(1) }),
      settings: { seed: 1, epochs: 1, batchSize: 4, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
      batching,
      state: startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() })),
    });
    device.resetPeak();
    const before = device.memory.liveBytes;
    await trainer.trainStep();
    const measured = device.memory.peakBytes - before;
    using plan = new StepMemory(device, { config, precision, tuner: spec, settings: {} });
    const counted = plan.peakBytes({ rows: microBatchSize, columns: COLUMNS, labelled: microBatchSize * (COLUMNS - 1), recomputeBlocks });
    expect(plan.weightBytes).toBe(model.weightBytes);
    // Constants that the device keeps are made in the one and were there in the other.
    expect(Math.abs((counted - plan.weightBytes) / measured - 1)).toBeLessThan(0.01);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
