/**
 * Every tuner there is, by its kind alone, as a fine-tuning job on a tiny model: it learns; stopped and resumed it gives the same bits; the folder it leaves computes
 * what was trained, token by token as all at once, and training may go on from it. Numbers are checked elsewhere.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import type { ArtifactRef, FineTuneResult, FineTuneSpec } from '@tunefleet/contracts';
import { systemClock } from '@tunefleet/foundation';
import { PrefixCache, sequenceLogits } from '@tunefleet/ml-generation';
import { ModelResolver, type CausalLm } from '@tunefleet/ml-models';
import type { ModelHook } from '@tunefleet/ml-nn';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter, tunerSpecs, type TunerKind } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { runJob } from '../run-job';
import { EngineResources } from '../runtime/engine-resources';
import type { JobEvents, JobOutcome, WrittenFolder } from '../runtime/job-context';
import { StopRequest } from '../runtime/stop-request';

jest.setTimeout(120_000);

/** Settings under which something else is trained, or started from, than with the kind alone. */
const VARIANTS: Readonly<Record<string, { readonly kind: TunerKind; readonly [field: string]: unknown }>> = {
  'lora as DoRA with LoRA+': { kind: 'lora', use_dora: true, lora_dropout: 0.1, loraplus_lr_ratio: 4 },
  'lora from the largest singular values': { kind: 'lora', init_lora_weights: 'pissa', r: 4 },
  'lora on the embedding and the output head': { kind: 'lora', target_modules: ['q_proj', 'embed_tokens', 'lm_head'] },
  'lora with whole tables': { kind: 'lora', modules_to_save: ['embed_tokens', 'lm_head'] },
  'lora with trained tokens': { kind: 'lora', trainable_token_indices: [3, 5] },
  'qlora in fp4, with DoRA': { kind: 'qlora', bnb_4bit_quant_type: 'fp4', bnb_4bit_use_double_quant: false, use_dora: true },
  'qlora from the weights': { kind: 'qlora', init_lora_weights: 'pissa_niter_4' },
  'prompt-tuning from a text': { kind: 'prompt-tuning', prompt_tuning_init: 'TEXT', prompt_tuning_init_text: 'is the mail spam' },
  'full, the last block': { kind: 'full', last_blocks: 1 },
  'prefix-tuning with projection': { kind: 'prefix-tuning', num_virtual_tokens: 6, prefix_projection: true },
};
const TUNERS = { ...Object.fromEntries(Object.keys(tunerSpecs).map((kind) => [kind, { kind: kind as TunerKind }])), ...VARIANTS };
/** Ten times the tuner's usual rate, for a handful of steps, unless said here. */
const LEARNING_RATES: Readonly<Record<string, number>> = { 'prefix-tuning with projection': 1e-2 };
/** Tuners whose files hold what they compute, not what they train. */
const NOT_CONTINUED: Readonly<Record<string, string>> = { 'lora from the largest singular values': 'it is saved with twice the rank', 'qlora from the weights': 'it is saved with twice the rank', 'prefix-tuning with projection': 'the MLP is not saved', 'p-tuning': 'the encoder is not saved' };
const STOPPED_AFTER = 4;

let folder: string;
let engine: EngineResources;
let base: { id: string; revision: string };
const inputFiles = new Map<string, string>();
let runs = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tunefleet-tuners-'));
  await writeTinyModel(join(folder, 'model'));
  const resolver = new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: 'http://127.0.0.1:9', order: [], localRoots: [folder], mirror: { python: 'none' }, catalogue: [] });
  engine = new EngineResources({ device: await openDevice({ backend: 'tensorflow' }), resolver, tokenCacheDirectory: join(folder, 'tokens') });
  const { id, revision } = await resolver.describe(join(folder, 'model'));
  base = { id, revision };
});
afterAll(() => {
  engine.close();
  rmSync(folder, { recursive: true, force: true });
});

test.each(Object.entries(TUNERS))('%s', async (name, fields) => {
  const spec = specOf(name, fields);
  const whole = await run(spec);
  const written = succeeded(whole.outcome);
  expect(whole.losses).toHaveLength(9);
  expect(Math.min(...whole.losses.slice(6))).toBeLessThan(whole.losses[0] ?? NaN);

  const stopped = await run(spec, null, STOPPED_AFTER);
  expect(stopped.outcome).toEqual({ type: 'stopped' });
  const resumed = await run(spec, stopped.checkpoints.at(-1)?.dir ?? null);
  expect([...stopped.losses, ...resumed.losses]).toEqual(whole.losses);
  expect(hashesOf(succeeded(resumed.outcome).folder)).toEqual(hashesOf(written.folder));

  using opened = await engine.openModel(base, 'f32');
  const { model } = opened;
  const ids = Int32Array.from({ length: 12 }, (_, i) => 40 + ((i * 7) % 50));
  const alone = read(model, ids, null);
  const handles = () => engine.device.memory.liveHandles - engine.device.cachedScalars;
  const before = handles();
  const adapter = await loadAdapter(model, written.folder.dir);
  expect(adapter.tuner.kind).toBe(fields.kind === 'qlora' ? 'lora' : fields.kind);
  const { atOnce, stepwise } = read(model, ids, adapter.hook);
  expect(difference(atOnce, alone.atOnce)).toBeGreaterThan(1e-4);
  expect(difference(stepwise, atOnce.subarray(-stepwise.length))).toBeLessThan(1e-4);
  adapter.dispose();
  expect(handles()).toBe(before);
  expect(read(model, ids, null)).toEqual(alone);
  opened[Symbol.dispose]();

  const startAdapter = written.folder.files.map(({ name }) => input(name, readFileSync(join(written.folder.dir, name))));
  const onwards = run({ ...spec, startAdapter, epochs: 1 });
  if (NOT_CONTINUED[name] !== undefined) {
    await expect(onwards).rejects.toMatchObject({ code: 'incompatible_artifact', reason: 'bad_start_adapter' });
    return;
  }
  expect(adapter.values.length).toBe(written.result.trainableParameters);
  expect((await onwards).losses[0]).toBeLessThan(whole.losses[0] ?? NaN);
});

/** Logits of all tokens at once, and of the last four as generation reads them. */
function read(model: CausalLm, ids: Int32Array, hook: ModelHook | null): { readonly atOnce: Float32Array; readonly stepwise: Float32Array } {
  using cache = new PrefixCache(model, hook);
  const steps = [3, 2, 1, 0].map((left) => cache.read(ids.slice(0, ids.length - left))[0] as Float32Array);
  return { atOnce: sequenceLogits(model, ids, hook), stepwise: Float32Array.from(steps.flatMap((step) => [...step])) };
}

function specOf(name: string, tuner: (typeof TUNERS)[string]): FineTuneSpec {
  const row = (i: number) => JSON.stringify({ messages: [{ role: 'user', content: `mail ${i} ${'win the ring '.repeat(i % 3)}` }, { role: 'assistant', content: i % 2 === 0 ? 'ham' : 'spam' }] });
  return {
    base,
    trainingFile: input('train.jsonl', Array.from({ length: 12 }, (_, i) => row(i)).join('\n')),
    tuner,
    computeDtype: 'f32',
    seed: 5,
    epochs: 3,
    batchSize: 4,
    maxSequenceLength: 128,
    learningRate: LEARNING_RATES[name] ?? 10 * tunerSpecs[tuner.kind].learningRate,
    schedule: 'constant',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
    microBatchSize: 2,
  };
}

interface Run {
  readonly outcome: JobOutcome<FineTuneResult>;
  readonly losses: readonly number[];
  readonly checkpoints: readonly WrittenFolder[];
}

async function run(spec: FineTuneSpec, resumeDir: string | null = null, stopAfter = Infinity): Promise<Run> {
  const outputDir = join(folder, `run-${++runs}`);
  mkdirSync(outputDir);
  const stop = new StopRequest();
  const losses: number[] = [];
  const checkpoints: WrittenFolder[] = [];
  const ignore = () => undefined;
  const events: JobEvents = {
    log: ignore,
    progress: ignore,
    model: ignore,
    checkpoint: (_step, written) => checkpoints.push(written),
    metrics: (step, values) => {
      losses.push(values['train_loss'] ?? NaN);
      if (step === stopAfter) stop.request(true);
    },
  };
  let time = 0;
  const clock = { ...systemClock, monotonic: () => (time += 1000) };
  const outcome = (await runJob('fine-tune', 1, { spec, inputFiles, resumeDir, outputDir, events, stop, engine, clock })) as JobOutcome<FineTuneResult>;
  return { outcome, losses, checkpoints };
}

function succeeded(outcome: JobOutcome<FineTuneResult>): { readonly result: FineTuneResult; readonly folder: WrittenFolder } {
  if (outcome.type !== 'succeeded' || !outcome.folder) throw new Error('stopped');
  return { result: outcome.result, folder: outcome.folder };
}

function input(name: string, content: string | Uint8Array): ArtifactRef {
  const sha256 = createHash('sha256').update(content).digest('hex');
  const path = join(folder, sha256);
  writeFileSync(path, content);
  inputFiles.set(sha256, path);
  return { name, sha256, bytes: Buffer.byteLength(content) };
}

const hashesOf = ({ files }: WrittenFolder) => Object.fromEntries(files.map(({ name, sha256 }) => [name, sha256]));

function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return a.length === b.length ? Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? NaN)))) : Infinity;
}
