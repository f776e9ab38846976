import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256Hex, sleep } from '@tunefleet/foundation';
import { z } from 'zod';
import { toEngineSchema, type FromEngine, type ToEngine } from '../engine-protocol';

/**
 * An engine without a model, for tests of everything around it: same protocol, same files, steps that only count.
 * What it does stands in the job's spec under `fake`. Its loss at a step is a function of the step, so that a
 * resumed run repeats the values of the one that was cut.
 */
const fakeSpecSchema = z.object({
  fake: z.object({
    steps: z.int(),
    checkpointEvery: z.int().default(0),
    /** Waits before this step until `<gateDir>/<name>` exists. */
    holdAt: z.int().optional(),
    gate: z.string().optional(),
    /** Dies like a crash at this step, unless resumed. */
    crashAt: z.int().optional(),
    ignoreStop: z.boolean().default(false),
    /** Size of the result file. */
    resultBytes: z.int().default(0),
    failWith: z.enum(['user', 'resource', 'infrastructure', 'platform']).optional(),
  }),
});

type Run = ToEngine & { type: 'run' };

const POLL_MS = 5;
const stops = new Map<string, (checkpoint: boolean) => void>();

function say(message: FromEngine): void {
  process.send?.(message);
}

async function runJob(run: Run): Promise<void> {
  const state = { stop: null as { checkpoint: boolean } | null };
  const { runId } = run;
  stops.set(runId, (checkpoint) => void (state.stop = { checkpoint }));
  const { fake } = fakeSpecSchema.parse(run.spec);
  for (const file of Object.values(run.inputFiles)) await readFile(file);
  const startStep = run.resumeDir === null ? 0 : Number(await readFile(join(run.resumeDir, 'state.txt'), 'utf8'));
  say({ type: 'log', runId, level: 'info', message: `fake engine ${process.pid} starts after step ${startStep}` });
  if (fake.failWith !== undefined) {
    return say({ type: 'failed', runId, failure: { class: fake.failWith, code: 'fake_failure', message: 'asked to fail', param: null, logTail: [] } });
  }
  for (let step = startStep + 1; step <= fake.steps; step++) {
    while (step === fake.holdAt && fake.gate !== undefined && !existsSync(fake.gate) && state.stop === null) await sleep(POLL_MS);
    if (state.stop !== null && !fake.ignoreStop) {
      if (state.stop.checkpoint && step > 1) await checkpoint(run, step - 1);
      return say({ type: 'stopped', runId });
    }
    while (fake.ignoreStop && state.stop !== null) await sleep(POLL_MS);
    if (step === fake.crashAt && run.resumeDir === null) {
      process.stderr.write('fake engine: about to crash\n', () => process.abort());
      await sleep(60_000);
    }
    say({ type: 'metrics', runId, step, values: { loss: 1 / step } });
    say({ type: 'progress', runId, step, totalSteps: fake.steps, phase: 'training', tokensPerSecond: 100, etaSeconds: fake.steps - step });
    if (fake.checkpointEvery > 0 && step % fake.checkpointEvery === 0) await checkpoint(run, step);
    await sleep(1);
  }
  const dir = join(run.outputDir, 'result');
  const files = [await write(dir, 'adapter_model.safetensors', `weights after ${fake.steps} steps`.padEnd(fake.resultBytes, '.'))];
  say({ type: 'succeeded', runId, result: result(fake.steps), dir, files });
}

async function checkpoint(run: Run, step: number): Promise<void> {
  const dir = join(run.outputDir, `ckpt-${step}`);
  const files = [await write(dir, 'state.txt', String(step))];
  say({ type: 'checkpoint', runId: run.runId, step, dir, files, metrics: { loss: 1 / step } });
}

async function write(dir: string, name: string, text: string): Promise<{ name: string; sha256: string; bytes: number }> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, name), text);
  return { name, sha256: sha256Hex(text), bytes: Buffer.byteLength(text) };
}

function result(steps: number): Record<string, unknown> {
  return {
    steps,
    trainedTokens: steps,
    lossTokens: steps,
    lossFirst: 1,
    lossLast: 1 / steps,
    validLoss: null,
    tokensPerSecond: 100,
    trainSeconds: 1,
    peakRssBytes: process.memoryUsage.rss(),
    peakDeviceBytes: 0,
    computeDtype: 'f32',
    trainableParameters: 1,
  };
}

process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => undefined);
process.on('message', (wire) => {
  const message = toEngineSchema.parse(wire);
  if (message.type === 'exit') process.exit(0);
  if (message.type === 'run') void runJob(message);
  if (message.type === 'stop') stops.get(message.runId)?.(message.checkpoint);
});
say({
  type: 'ready',
  device: { kind: 'cpu', name: 'fake', backend: 'fake', backendVersion: '1', memoryBytesTotal: 16 * 1024 ** 3, memoryBytesFree: 16 * 1024 ** 3, bf16: false, threads: 1 },
  jobKinds: ['fine-tune', 'eval'],
});
