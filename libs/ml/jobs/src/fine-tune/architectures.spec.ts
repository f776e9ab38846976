/** A fine-tuning job from a local folder on every decoder: it runs, its loss falls, and the adapter it leaves belongs to the model. Numbers are checked elsewhere. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import type { FineTuneResult, FineTuneSpec } from '@tunefleet/contracts';
import { systemClock } from '@tunefleet/foundation';
import { encodeSafetensors, SafetensorsFolder } from '@tunefleet/ml-formats';
import { architectureSpecs, loadCausalLm, ModelResolver } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { runJob } from '../run-job';
import { EngineResources } from '../runtime/engine-resources';
import type { JobEvents, JobOutcome } from '../runtime/job-context';
import { StopRequest } from '../runtime/stop-request';

jest.setTimeout(60_000);

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'models', 'fixtures');
const POSITIONS = 128;
const TRAINING = Array.from({ length: 12 }, (_, i) => JSON.stringify({ messages: [{ role: 'user', content: `mail ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'ham' : 'spam' }] })).join('\n');

let folder = '';
let engine: EngineResources;
let resolver: ModelResolver;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tunefleet-architectures-'));
  resolver = new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: 'http://127.0.0.1:9', order: [], localRoots: [folder], mirror: { python: 'none' }, catalogue: [] });
  engine = new EngineResources({ device: await openDevice({ backend: 'tensorflow' }), resolver, tokenCacheDirectory: join(folder, 'tokens') });
  writeFileSync(join(folder, 'train.jsonl'), TRAINING);
});
afterAll(() => {
  engine.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The fixture's model with the tiny model's tokenizer: tables are made as long as that needs. */
async function writeModel(type: string): Promise<{ model: string; config: Record<string, unknown> }> {
  const model = join(folder, type);
  await writeTinyModel(model);
  const { vocab_size: V } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as { vocab_size: number };
  const given = JSON.parse(readFileSync(join(fixtures, type, 'config.json'), 'utf8')) as Record<string, unknown>;
  const config = { ...given, vocab_size: V, ...(type === 'gpt2' ? { n_positions: POSITIONS } : { max_position_embeddings: POSITIONS }), eos_token_id: 2 };
  using files = SafetensorsFolder.open(join(fixtures, type));
  const tensors = files.names().map((name) => {
    const { dtype, shape } = files.entry(name);
    const rows = name.endsWith('wpe.weight') ? POSITIONS : /(embed_tokens|wte|lm_head)\.weight$/.test(name) ? V : shape[0];
    const data = files.read(name).slice();
    if (rows === shape[0] || rows === undefined) return { name, dtype, shape, data };
    const longer = new Uint8Array((data.length / (shape[0] ?? 1)) * rows);
    for (let at = 0; at < longer.length; at += data.length) longer.set(data.subarray(0, Math.min(data.length, longer.length - at)), at);
    return { name, dtype, shape: [rows, ...shape.slice(1)], data: longer };
  });
  writeFileSync(join(model, 'config.json'), JSON.stringify(config));
  writeFileSync(join(model, 'model.safetensors'), encodeSafetensors(tensors));
  return { model, config };
}

test.each(Object.keys(architectureSpecs).filter((type) => type !== 'llama'))('%s', async (type) => {
  const { model, config } = await writeModel(type);
  const { id, revision } = await resolver.describe(model);
  const sha256 = createHash('sha256').update(TRAINING).digest('hex');
  const spec: FineTuneSpec = {
    base: { id, revision },
    trainingFile: { name: 'train.jsonl', sha256, bytes: Buffer.byteLength(TRAINING) },
    tuner: { kind: 'lora', r: 4, lora_alpha: 8 },
    computeDtype: 'f32',
    seed: 5,
    epochs: 4,
    batchSize: 4,
    maxSequenceLength: 64,
    learningRate: 2e-2,
    schedule: 'constant',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
  };
  const outputDir = join(folder, `${type}-out`);
  mkdirSync(outputDir);
  const losses: number[] = [];
  const ignore = () => undefined;
  const events: JobEvents = { log: ignore, progress: ignore, checkpoint: ignore, model: ignore, metrics: (_step, values) => losses.push(values['train_loss'] ?? NaN) };
  let time = 0;
  const clock = { ...systemClock, monotonic: () => (time += 1000) };
  const outcome = (await runJob('fine-tune', 1, { spec, inputFiles: new Map([[sha256, join(folder, 'train.jsonl')]]), resumeDir: null, outputDir, events, stop: new StopRequest(), engine, clock })) as JobOutcome<FineTuneResult>;
  if (outcome.type !== 'succeeded') throw new Error('stopped');
  expect(losses).toHaveLength(12);
  expect(losses.at(-1)).toBeLessThan(0.85 * (losses[0] ?? NaN));
  using base = await loadCausalLm(engine.device, { folder: model, config, computeDtype: 'f32' });
  const adapter = await loadAdapter(base, outcome.folder?.dir ?? '');
  expect(adapter.values.length).toBe(outcome.result.trainableParameters);
  adapter.dispose();
});
