/** What tuners say of sharing passes, held to what a shared step does: every tuner there is, and the fields that change the answer; on a tiny random Llama. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, parseTunerSpec, sharedPasses, tunerSpecs, type SharedPasses } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { texts } from '../testing';
import { Trainer } from '../trainer';
import { startState } from '../trainer-state';
import { stepTogether } from './step-together';

jest.setTimeout(60_000);

const TOLERANCE = 2e-5;
const BLOCKS = { kind: 'lora', r: 3, target_modules: 'all-linear' };
const BYPASS = { kind: 'restuning-bypass', stem_stride: 2 };

type Answer = SharedPasses | 'nothing' | 'nothing, but could: every product of the pass is its own';

/** Fields, and what such runs share. */
const ROWS: readonly (readonly [fields: { readonly kind: string; readonly [field: string]: unknown }, shares: Answer])[] = [
  [{ kind: 'lora' }, 'blocks'],
  [{ kind: 'lora', use_dora: true, lora_dropout: 0.1 }, 'blocks'],
  [{ kind: 'lora', bias: 'all', lora_bias: true }, 'blocks'],
  [{ kind: 'lora', init_lora_weights: 'pissa', r: 4 }, 'blocks'],
  [{ kind: 'lora', target_modules: ['q_proj', 'embed_tokens', 'lm_head'] }, 'blocks'],
  [{ kind: 'lora', modules_to_save: ['embed_tokens', 'lm_head'] }, 'blocks'],
  [{ kind: 'lora', modules_to_save: ['input_layernorm'] }, 'nothing'],
  [{ kind: 'lora', modules_to_save: ['lm_head', 'model.norm'] }, 'nothing'],
  [{ kind: 'lora', trainable_token_indices: [3, 5] }, 'blocks'],
  [{ kind: 'qlora' }, 'blocks'],
  [{ kind: 'qlora', modules_to_save: ['model.norm'] }, 'nothing'],
  [{ kind: 'ia3' }, 'blocks'],
  [{ kind: 'adapter' }, 'blocks'],
  [{ kind: 'side-tuning' }, 'blocks'],
  [{ kind: 'prompt-tuning' }, 'nothing'],
  [{ kind: 'prefix-tuning' }, 'nothing'],
  [{ kind: 'prefix-tuning', prefix_projection: true }, 'nothing'],
  [{ kind: 'p-tuning' }, 'nothing'],
  [{ kind: 'deep-prompt-tuning' }, 'nothing'],
  [{ kind: 'restuning' }, 'blocks'],
  [{ kind: 'restuning', tuner_cfg: 'res_prefix' }, 'nothing'],
  [{ kind: 'restuning-bypass' }, 'bypass'],
  [{ kind: 'full' }, 'nothing'],
  [{ kind: 'full', last_blocks: 1 }, 'nothing'],
  [{ kind: 'full', last_blocks: 1, train_norms: false, train_head: false }, 'nothing, but could: every product of the pass is its own'],
];

let folder: string;
let model: CausalLm;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tunefleet-routable-'));
  const device = await openDevice({ backend: 'tensorflow' });
  const base = await writeTinyModel(join(folder, 'model'));
  model = await loadCausalLm(device, { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype: 'f32' });
});
afterAll(async () => {
  model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

function start(fields: object, seed: number): Trainer {
  const tuner = createTuner(parseTunerSpec(fields), model);
  const settings = { seed, epochs: 1, batchSize: 2, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 } as const;
  const values = tuner.initialValues(seed, { model, tokenise: () => Int32Array.of(5, 6) });
  return new Trainer({ model, tuner, dataset: texts(`seed ${seed}`, 6), settings, batching: { microBatchSize: 2, recomputeBlocks: false }, state: startState(values) });
}

test('no tuner is left out', () => {
  expect(Object.keys(tunerSpecs).filter((kind) => !ROWS.some(([fields]) => fields.kind === kind))).toEqual([]);
});

test.each(ROWS)('%j shares passes of: %s', async (fields, shares) => {
  expect(sharedPasses(parseTunerSpec(fields), model)).toBe(shares.startsWith('nothing') ? null : shares);
  const neighbour = shares === 'bypass' ? BYPASS : BLOCKS;
  const [joint, lone] = [[start(fields, 1), start(neighbour, 2)], [start(fields, 1), start(neighbour, 2)]];
  if (shares === 'nothing') {
    await expect(stepTogether(joint, { tokensPerPass: 4096 })).rejects.toMatchObject({ code: 'invalid_input', reason: 'not_routable' });
    return;
  }
  for (let step = 0; step < 2; step++) {
    await stepTogether(joint, { tokensPerPass: 4096 });
    for (const trainer of lone) await trainer.trainStep();
  }
  joint.forEach(({ state }, run) => {
    const wanted = (lone[run] as Trainer).state;
    expect(state.step).toBe(2);
    expect(Math.abs((state.lossLast ?? NaN) - (wanted.lossLast ?? NaN))).toBeLessThan(TOLERANCE);
    expect(state.values.reduce((most, value, at) => Math.max(most, Math.abs(value - (wanted.values[at] ?? NaN))), 0)).toBeLessThan(TOLERANCE);
  });
});

test('a bypass does not share with what trains the blocks', async () => {
  await expect(stepTogether([start(BLOCKS, 1), start(BYPASS, 2)], { tokensPerPass: 4096 })).rejects.toThrow('beside a bypass');
});
