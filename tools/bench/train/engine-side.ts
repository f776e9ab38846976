import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PackedDataset } from '@tunefleet/ml-data';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice, OpProfile, type FloatDType, type OpCost } from '@tunefleet/ml-tensor';
import { startState, Trainer } from '@tunefleet/ml-training';
import { createTuner } from '@tunefleet/ml-tuners';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';

export interface SideOptions {
  readonly model: string;
  readonly steps: number;
  readonly batch: number;
  readonly length: number;
  readonly rank: number;
  readonly threads: number;
  readonly dtype: FloatDType;
  /** Examples per pass. */
  readonly microBatch: number;
  /** Note what every op takes. */
  readonly profile: boolean;
}

/** What either side reports of its run. */
export interface SideResult {
  readonly step_seconds: readonly number[];
  readonly losses: readonly number[];
  readonly trainable_parameters: number;
  readonly peak_rss_bytes: number;
  /** Dearest first, of all steps but the first. */
  readonly op_costs?: readonly OpCost[];
}

/** Trains on random tokens as `train_peft.py` does: equal rows, every token labelled. */
export async function trainHere(options: SideOptions): Promise<SideResult> {
  const { steps, batch, length, rank } = options;
  const profile = options.profile ? new OpProfile() : undefined;
  const device = await openDevice({ backend: 'tensorflow', threads: options.threads, ...(profile && { profile }) });
  const config = JSON.parse(await readFile(join(options.model, 'config.json'), 'utf8')) as { readonly vocab_size: number };
  using model = await loadCausalLm(device, { folder: options.model, config, computeDtype: options.dtype });
  const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: rank, lora_alpha: 2 * rank, target_modules: 'all-linear' }), model);
  let state = 2;
  const token = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * config.vocab_size);
  };
  const tokens = steps * batch * length;
  const dataset = new PackedDataset('random', {
    lengths: new Int32Array(steps * batch).fill(length),
    ids: Int32Array.from({ length: tokens }, token),
    learned: new Uint8Array(tokens).fill(1),
  });
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { seed: 1, epochs: 1, batchSize: batch, learningRate: 2e-4, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
    batching: { microBatchSize: options.microBatch, recomputeBlocks: false },
    state: startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() })),
  });
  const seconds: number[] = [];
  const losses: number[] = [];
  while (!trainer.finished) {
    const step = await trainer.trainStep();
    if (step === null) throw new Error('nobody asked to stop');
    seconds.push(step.seconds);
    losses.push(step.loss);
    if (losses.length === 1) profile?.reset();
  }
  return { step_seconds: seconds, losses, trainable_parameters: tuner.parameterCount, peak_rss_bytes: process.resourceUsage().maxRSS * 1024, ...(profile && { op_costs: profile.costs() }) };
}
