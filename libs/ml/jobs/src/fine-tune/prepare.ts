import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { ArtifactRef, FineTuneSpec } from '@tunefleet/contracts';
import { tokeniseFile, type TokenisedDataset, type TokenisedFile } from '@tunefleet/ml-data';
import { chooseBatching, fingerprintOf, SavedCheckpoint, startState, type Batching, type Objective, type RunChoices, type RunIdentity, TrainingRun, type TrainerState, type TrainingSettings } from '@tunefleet/ml-training';
import { createTuner, loadAdapter, parseTunerSpec, sharedPasses, specHalfOf, textPositions, type LoadedAdapter, type SharedPasses, type Tuner, type TunerSpec } from '@tunefleet/ml-tuners';
import { availableDeviceBytes, stemDiskBytes, tokensPerPass } from '../runtime/device-limits';
import type { BorrowedModel, OpenedModel } from '../runtime/engine-resources';
import { inputFile, inputFolder } from '../runtime/input-files';
import type { JobContext } from '../runtime/job-context';
import type { SharedPassBytes } from '../runtime/step-exchange';
import { chooseKeptStems } from './keep-stems';
import { MemoryPlan } from './memory-plan';
import { groupSizeOf, prepareObjective } from './objective';
import { startValues } from './start-values';

type Context = JobContext<FineTuneSpec>;

/** What a run is about, with its base model. */
export interface OpenedRun {
  readonly opened: BorrowedModel;
  readonly tunerSpec: TunerSpec;
  readonly checkpoint: SavedCheckpoint | null;
}

/** All a run needs before its first step. */
export interface PreparedRun {
  readonly opened: OpenedModel;
  readonly tuner: Tuner;
  readonly training: TokenisedDataset;
  readonly validation: TokenisedDataset | null;
  readonly settings: TrainingSettings;
  readonly objective: Objective;
  /** The objective's part of checkpoints. */
  readonly extras: ReadonlyMap<string, Float32Array>;
  readonly identity: RunIdentity;
  /** How the run begins; a lack of memory may change it. */
  readonly batching: Batching;
  readonly choices: RunChoices;
  /** Foretold peak of its steps on the device, weights included. */
  readonly predictedPeakBytes: number;
  /** With which runs on the same model it may share passes; null: with none. */
  readonly shares: SharedPasses | null;
  readonly sharedPassBytes: SharedPassBytes;
  readonly state: TrainerState;
  /** What `notes` of the checkpoint said; empty at a fresh start. */
  readonly notes: Readonly<Record<string, number>>;
}

/** Dispose the model when the run has ended. @throws TunefleetError as `openModel`, `parseTunerSpec` and `SavedCheckpoint.open` */
export async function openRun({ spec, events, stop, engine, resumeDir }: Context): Promise<OpenedRun> {
  const checkpoint = resumeDir === null ? null : await SavedCheckpoint.open(resumeDir);
  const tunerSpec = parseTunerSpec(spec.tuner);
  const precision = { ...(checkpoint?.choices ?? engine.settlePrecision(spec.computeDtype)), quantisation: specHalfOf(tunerSpec).baseQuantisation?.(tunerSpec) ?? null };
  return { opened: await engine.openModel(spec.base, precision, { events, signal: stop.signal }), tunerSpec, checkpoint };
}

/** @throws TunefleetError for the user: bad rows, a tuner or start adapter that does not fit, too little memory, a foreign checkpoint */
export async function prepareRun(context: Context, { opened, tunerSpec, checkpoint }: OpenedRun): Promise<PreparedRun> {
  const { spec, events, engine } = context;
  const tuner = createTuner(tunerSpec, opened.model);
  const training = await tokenise(context, opened, tunerSpec, spec.trainingFile, 'training_file');
  const validation = spec.validationFile ? await tokenise(context, opened, tunerSpec, spec.validationFile, 'validation_file') : null;
  const { seed, epochs, batchSize, learningRate, schedule, warmupRatio, weightDecay, maxGradNorm, neftuneNoiseAlpha } = spec;
  const settings: TrainingSettings = { seed, epochs, batchSize, learningRate, schedule, warmupRatio, weightDecay, maxGradNorm, ...(neftuneNoiseAlpha === undefined ? {} : { neftuneNoiseAlpha }) };
  const identity: RunIdentity = {
    model: `${opened.base.id}@${opened.base.revision}`,
    dataset: training.fingerprint,
    settings: fingerprintOf({ ...settings, tuner: spec.tuner, computeDtype: spec.computeDtype, startAdapter: spec.startAdapter?.map(({ name, sha256 }) => ({ name, sha256 })) ?? null, ...(spec.objective === undefined ? {} : { objective: spec.objective }) }),
  };
  const datasets = [training, ...(validation === null ? [] : [validation])];
  using plan = new MemoryPlan(engine.device, { config: opened.config, precision: opened, tuner: tunerSpec, settings }, { datasets, groupSize: groupSizeOf(spec) });
  const passes = checkpoint === null ? fitBatching(context, plan) : keepBatching(context, checkpoint.choices);
  const keptStems = chooseKeptStems(context, {
    opened,
    tuner: tunerSpec,
    datasets,
    stepBytes: plan.boundBytes(passes, availableDeviceBytes(engine.device)),
    diskBytes: await stemDiskBytes(context.outputDir),
    before: checkpoint === null ? null : (checkpoint.choices.keptStemBytes ?? 0),
  });
  const batching = keptStems === null ? passes : { ...passes, keptStems };
  const state = checkpoint?.load(identity, tuner) ?? startState(await firstValues(context, opened, tuner));
  const { objective, extras } = await prepareObjective(context, {
    opened,
    training,
    validation,
    checkpoint,
    microBatchSize: passes.microBatchSize,
    withStartPolicy: (use) => withStartAdapter(context, opened, (adapter) => use(adapter?.hook ?? null)),
  });
  const predictedPeakBytes = plan.peakBytes(new TrainingRun({ model: opened.model, tuner, dataset: training, settings, batching, objective, state }), batching);
  // Where hidden states are kept, passes leave out what the others' begin with.
  const shares = keptStems === null ? sharedPasses(tunerSpec, opened.model) : null;
  if (checkpoint !== null) events.log('info', `going on after step ${checkpoint.step} from its checkpoint`);
  return { opened, tuner, training, validation, settings, objective, extras, identity, batching, choices: { ...passes, keptStemBytes: keptStems?.bytes ?? 0, computeDtype: opened.computeDtype, weightDtype: opened.weightDtype }, predictedPeakBytes, shares, sharedPassBytes: plan.sharedPassBytes(), state, notes: checkpoint?.notes ?? {} };
}

const PROGRESS_INTERVAL_MS = 500;
/** One thread reads the file, which more would wait for. */
const TOKENISER_THREADS_MAX = 8;
const UNITS = { supervised: 'examples', dpo: 'pairs', pretraining: 'rows' };

async function tokenise({ spec, inputFiles, engine, events, stop, clock }: Context, { tokenizer, model }: OpenedModel, tuner: TunerSpec, file: ArtifactRef, param: string): Promise<TokenisedDataset> {
  const started = clock.monotonic();
  let lastReportMs = started;
  const { dataset, statistics, fromCache }: TokenisedFile = await tokeniseFile(inputFile(inputFiles, file), {
    tokenizer,
    purpose: spec.objective?.type ?? 'supervised',
    maxLength: Math.min(spec.maxSequenceLength, textPositions(tuner, model.maxPositions)),
    fileSha256: file.sha256,
    ...(engine.tokenCacheDirectory === null ? {} : { cacheDirectory: engine.tokenCacheDirectory }),
    ...(engine.tokeniserThread === undefined ? {} : { threads: { script: engine.tokeniserThread, count: Math.min(TOKENISER_THREADS_MAX, availableParallelism()) } }),
    param,
    signal: stop.signal,
    onProgress: (rows) => {
      const now = clock.monotonic();
      if (now - lastReportMs < PROGRESS_INTERVAL_MS) return;
      lastReportMs = now;
      events.progress({ step: 0, totalSteps: 0, phase: `tokenise ${rows} rows`, tokensPerSecond: 0, etaSeconds: 0 });
    },
  });
  const { examples, tokens, lossTokens, longest } = statistics;
  const how = fromCache ? 'tokens found in the cache' : `tokenised in ${((clock.monotonic() - started) / 1000).toFixed(1)} s`;
  events.log('info', `${param}: ${examples / groupSizeOf(spec)} ${UNITS[spec.objective?.type ?? 'supervised']}, ${tokens} tokens, ${lossTokens} of them learned, longest ${longest}; ${how}`);
  return dataset;
}

/** @throws TunefleetError `out_of_device_memory` */
function fitBatching({ spec, engine, events }: Context, plan: MemoryPlan): Batching {
  const availableBytes = availableDeviceBytes(engine.device);
  const batching = chooseBatching({
    batchSize: spec.batchSize,
    longestRow: groupSizeOf(spec) * plan.columns,
    microBatchSizeMax: spec.microBatchSize,
    tokensPerPass: tokensPerPass(engine.device),
    availableBytes,
    estimateBytes: (choice) => plan.boundBytes(choice, availableBytes),
  });
  if (batching.recomputeBlocks) events.log('warn', 'memory is short: activations are computed a second time instead of kept, which takes about a third longer');
  return batching;
}

/** As in the run before, unless the user or a retry after a lack of memory asks for less: then the bits differ from there on, the mathematics do not. */
function keepBatching({ spec, events }: Context, { microBatchSize, recomputeBlocks }: RunChoices): Batching {
  const allowed = Math.min(microBatchSize, spec.microBatchSize ?? microBatchSize);
  if (allowed < microBatchSize) events.log('warn', `passes with room for ${allowed} rows instead of ${microBatchSize} from here on; losses may differ in the last digits`);
  return { microBatchSize: allowed, recomputeBlocks };
}

async function firstValues(context: Context, opened: OpenedModel, tuner: Tuner): Promise<Float32Array> {
  const { spec, events } = context;
  const { model, tokenizer } = opened;
  return withStartAdapter(context, opened, (loaded) => {
    if (loaded === null) return tuner.initialValues(spec.seed, { model, tokenise: (text) => tokenizer.encode(text, { addSpecialTokens: true }) });
    for (const notice of loaded.notices) events.log('warn', `start adapter: ${notice}`);
    return startValues(tuner, loaded);
  });
}

/** @param use gets null where the run starts afresh */
async function withStartAdapter<T>({ spec, inputFiles, outputDir }: Context, { model }: OpenedModel, use: (adapter: LoadedAdapter | null) => T | Promise<T>): Promise<T> {
  if (spec.startAdapter === undefined) return use(null);
  const dir = join(outputDir, 'start-adapter');
  try {
    const loaded = await loadAdapter(model, await inputFolder(inputFiles, spec.startAdapter, dir));
    try {
      return await use(loaded);
    } finally {
      loaded.dispose();
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
