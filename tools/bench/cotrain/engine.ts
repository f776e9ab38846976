import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, OpProfile, probeDevice, type FloatDType } from '@tunefleet/ml-tensor';
import { startState, stepTogether, Trainer } from '@tunefleet/ml-training';
import { createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import { writeRandomModel } from '../model/shape';
import { printProfile } from '../print-profile';
import { answersToQuestions } from '../tuners/data';
import { counts } from '../report/options';
import { median, type Row } from '../report/row';

/** Room of a pass, as jobs choose it with memory to spare. */
const TOKENS_PER_PASS = 1024;

/** As given on the command line. */
export interface EngineValues {
  readonly runs: string;
  readonly batch: string;
  readonly length: string;
  readonly answer: string;
  readonly rank: string;
  readonly targets: string;
  readonly steps: string;
  readonly rounds: string;
  readonly layers: string;
  readonly dtype: string;
  readonly model?: string | undefined;
  readonly profile: boolean;
}

/** Runs in one process: steps together, and one after the other, in turns. */
export async function measureEngine(values: EngineValues): Promise<Row[]> {
  const { runs, batch, length, answer, rank, steps, rounds, layers } = counts(values, ['runs', 'batch', 'length', 'answer', 'rank', 'steps', 'rounds', 'layers']);
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-bench-cotrain-'));
  try {
    const base = values.model ?? join(folder, 'model');
    if (values.model === undefined) await writeRandomModel(base, layers);
    const profile = values.profile ? new OpProfile() : undefined;
    const device = await openDevice({ backend: 'tensorflow', ...(profile && { profile }) });
    const computeDtype = values.dtype === 'auto' ? probeDevice(device).recommended : (values.dtype as FloatDType);
    using model = await loadCausalLm(device, { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype });
    const start = () => Array.from({ length: runs }, (_, seed) => trainerOf(model, { seed, steps: steps * rounds + 1, batch, length, answer, spec: { kind: 'lora', r: rank, lora_alpha: 2 * rank, target_modules: values.targets } }));
    const [lone, joint] = [start(), start()];
    const alone = async () => {
      for (const trainer of lone) for (let step = 0; step < steps; step++) await trainer.trainStep();
    };
    const together = async () => {
      for (let step = 0; step < steps; step++) await stepTogether(joint, { tokensPerPass: TOKENS_PER_PASS });
    };
    // The first pass of a process makes kernels and maps memory.
    for (const trainer of lone) await trainer.trainStep();
    await stepTogether(joint, { tokensPerPass: TOKENS_PER_PASS });
    profile?.reset();
    const [took, tookTogether]: [Taken[], Taken[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      if (!profile) took.push(await timed(alone));
      tookTogether.push(await timed(together));
      process.stderr.write(`round ${round + 1}: alone ${written(took.at(-1))}, together ${written(tookTogether.at(-1))}\n`);
    }
    if (profile) printProfile(profile.costs(), steps * rounds);
    const tokens = runs * batch * length * steps;
    const name = `${runs} LoRA runs of ${batch} x ${length}, ${computeDtype}`;
    const speed = (taken: readonly Taken[]) => tokens / median(taken.map(({ seconds }) => seconds));
    const cpu = (taken: readonly Taken[]) => median(taken.map(({ cpuSeconds }) => cpuSeconds)) / steps;
    const [value, peer] = [speed(tookTogether), speed(took)];
    if (profile) return [{ name: `${name}: together`, unit: 'tokens/s', value }];
    const difference = Math.max(...joint.map(({ state }, index) => Math.abs((state.lossLast ?? NaN) - (lone[index]?.state.lossLast ?? NaN))));
    return [
      { name: `${name}: speed together, and one after the other`, unit: 'tokens/s', value, peer, ratio: value / peer },
      { name: `${name}: CPU time of a step of each`, unit: 's', value: cpu(tookTogether), peer: cpu(took), ratio: cpu(took) / cpu(tookTogether) },
      { name: `${name}: largest difference of last losses`, unit: 'nats', value: difference },
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface RunShape {
  readonly seed: number;
  readonly steps: number;
  readonly batch: number;
  readonly length: number;
  readonly answer: number;
  readonly spec: object;
}

function trainerOf(model: CausalLm, { seed, steps, batch, length, answer, spec }: RunShape): Trainer {
  const tuner = createTuner(parseTunerSpec(spec), model);
  return new Trainer({
    model,
    tuner,
    dataset: answersToQuestions(steps * batch, { length, answer }, model.vocabSize),
    settings: { seed, epochs: 1, batchSize: batch, learningRate: 2e-4, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
    batching: { microBatchSize: Math.max(1, Math.floor(TOKENS_PER_PASS / length)), recomputeBlocks: false },
    state: startState(tuner.initialValues(seed, { model, tokenise: () => new Int32Array() })),
  });
}

interface Taken {
  readonly seconds: number;
  /** Of all threads: where other programs use the machine, it says more. */
  readonly cpuSeconds: number;
}

async function timed(work: () => Promise<void>): Promise<Taken> {
  const [started, before] = [performance.now(), process.cpuUsage()];
  await work();
  const { user, system } = process.cpuUsage(before);
  return { seconds: (performance.now() - started) / 1000, cpuSeconds: (user + system) / 1e6 };
}

function written(taken: Taken | undefined): string {
  return taken ? `${taken.seconds.toFixed(2)} s (${taken.cpuSeconds.toFixed(2)} s CPU)` : '-';
}
