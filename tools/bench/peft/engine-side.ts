import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice, OpProfile, type FloatDType, type OpCost } from '@tunefleet/ml-tensor';
import { chooseBatching, paddedWidth, startState, Trainer } from '@tunefleet/ml-training';
import { createTuner } from '@tunefleet/ml-tuners';
import { parseTunerSpec, specHalfOf } from '@tunefleet/ml-tuners/specs';
import { datasetOf, type BenchData } from './data';

/** What one run of either side is to do. */
export interface SideOptions {
  readonly model: string;
  /** JSON file of `BenchData`. */
  readonly data: string;
  readonly tuner: Readonly<Record<string, unknown>>;
  readonly dtype: FloatDType;
  /** Examples per optimiser step, and steps. */
  readonly batch: number;
  readonly steps: number;
  readonly threads: number;
  /** Ours only: room of a pass, in rows of the longest example; the engine chooses without. */
  readonly microBatch?: number;
  /** Ours only: note what every op takes. */
  readonly profile?: boolean;
}

/** What either side reports of its run. */
export interface SideResult {
  readonly step_seconds: readonly number[];
  /** Tokens of the examples of each step, without padding. */
  readonly step_tokens: readonly number[];
  readonly losses: readonly number[];
  readonly trainable_parameters: number;
  readonly peak_rss_bytes: number;
  /** Dearest first, of all steps but the first. */
  readonly op_costs?: readonly OpCost[];
}

/** As a job trains: longest example decides the room of a pass, memory is plenty. */
export async function trainHere({ model: folder, data, tuner: fields, dtype, batch, steps, threads, microBatch, profile: profiled = false }: SideOptions): Promise<SideResult> {
  const profile = profiled ? new OpProfile() : undefined;
  const device = await openDevice({ backend: 'tensorflow', threads, ...(profile && { profile }) });
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as unknown;
  const spec = parseTunerSpec(fields);
  const quantisation = specHalfOf(spec).baseQuantisation?.(spec);
  using model = await loadCausalLm(device, { folder, config, computeDtype: dtype, ...(quantisation && { quantisation }) });
  const tuner = createTuner(spec, model);
  const dataset = datasetOf(JSON.parse(await readFile(data, 'utf8')) as BenchData);
  const { microBatchSize } = chooseBatching({
    batchSize: batch,
    longestRow: paddedWidth(Math.max(...dataset.lengths)),
    tokensPerPass: 1024,
    microBatchSizeMax: microBatch,
    availableBytes: Infinity,
    estimateBytes: () => 0,
  });
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { seed: 1, epochs: 1, batchSize: batch, learningRate: 2e-4, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
    batching: { microBatchSize, recomputeBlocks: false },
    state: startState(tuner.initialValues(1, { model, tokenise: () => Int32Array.of(1, 2, 3) })),
  });
  const done: { readonly seconds: number; readonly tokens: number; readonly loss: number }[] = [];
  while (!trainer.finished && done.length < steps) {
    const step = await trainer.trainStep();
    if (step === null) throw new Error('nobody asked to stop');
    done.push(step);
    if (done.length === 1) profile?.reset();
  }
  return {
    step_seconds: done.map(({ seconds }) => seconds),
    step_tokens: done.map(({ tokens }) => tokens),
    losses: done.map(({ loss }) => loss),
    trainable_parameters: tuner.parameterCount,
    peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
    ...(profile && { op_costs: profile.costs() }),
  };
}
