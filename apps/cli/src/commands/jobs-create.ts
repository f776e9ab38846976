import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import type { CreateFineTuningJob, DpoHyperparameters } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { keyValue, nameList, positiveNumber, wholeNumber } from '../render/arguments';

export interface CreateJobOptions {
  readonly model: string;
  readonly file: string;
  readonly validationFile?: string;
  readonly suffix?: string;
  readonly method?: 'supervised' | 'dpo' | 'pretraining';
  readonly beta?: number;
  readonly seed?: number;
  readonly epochs?: number;
  readonly batchSize?: number;
  readonly microBatchSize?: number;
  readonly learningRate?: number;
  readonly schedule?: 'cosine' | 'linear' | 'constant';
  readonly neftuneNoiseAlpha?: number;
  readonly checkpointEvery?: number;
  readonly validateEvery?: number;
  readonly maxSeqLength?: number;
  readonly computeDtype?: 'auto' | 'f32' | 'bf16';
  readonly priority?: number;
  readonly workerLabel?: Readonly<Record<string, string>>;
  readonly share?: boolean;
  readonly after?: readonly string[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly tuner?: string;
  readonly rank?: number;
  readonly alpha?: number;
  readonly dropout?: number;
  readonly targetModules?: readonly string[];
  readonly tunerOption?: Readonly<Record<string, string>>;
  readonly watch?: boolean;
}

const MAX_INT32 = 2_147_483_647;

export function addCreateOptions(command: Command): Command {
  return command
    .requiredOption('--model <name>', 'base model, or a tuned model (ft:…) to go on from')
    .requiredOption('--file <id or path>', 'training file: an uploaded file, or a local one to upload first')
    .option('--validation-file <id or path>', 'file to measure the validation loss on')
    .addOption(new Option('--method <name>', 'supervised (default): answers; dpo: pairs of answers; pretraining: plain text').choices(['supervised', 'dpo', 'pretraining']))
    .option('--beta <number>', 'with --method dpo: larger stays closer to the model started from', positiveNumber)
    .option('--suffix <text>', 'part of the tuned model\'s name')
    .option('--epochs <count>', 'passes over the data', wholeNumber(1, 50))
    .option('--batch-size <rows>', 'rows per optimiser step', wholeNumber(1, 256))
    .option('--micro-batch-size <rows>', 'room of a forward pass, in rows of the longest example', wholeNumber(1, 256))
    .option('--learning-rate <rate>', 'peak learning rate', positiveNumber)
    .addOption(new Option('--schedule <name>', 'learning rate over time').choices(['cosine', 'linear', 'constant']))
    .option('--neftune-noise-alpha <number>', 'noise on the token embeddings while training (NEFTune), usually 5 to 15', positiveNumber)
    .option('--max-seq-length <tokens>', 'longest row', wholeNumber(8, 131_072))
    .option('--seed <number>', 'same seed, same run', wholeNumber(0, MAX_INT32))
    .option('--tuner <kind>', 'tuning method (default: lora, or that of the tuned model to go on from)')
    .option('--rank <number>', 'rank of the update', wholeNumber(1, 4096))
    .option('--alpha <number>', 'scale of the update: alpha / rank', positiveNumber)
    .option('--dropout <share>', 'dropout on the update\'s input', Number)
    .option('--target-modules <names>', '"all-linear", or module names separated by commas', nameList)
    .option('--tuner-option <key=value>', 'another field of the tuner, JSON value; repeatable', keyValue)
    .option('--checkpoint-every <steps>', 'steps between checkpoints (0: epochs only)', wholeNumber(0, 1_000_000))
    .option('--validate-every <steps>', 'steps between validation passes (0: epochs only)', wholeNumber(0, 1_000_000))
    .addOption(new Option('--compute-dtype <dtype>', 'arithmetic').choices(['auto', 'f32', 'bf16']))
    .option('--priority <number>', 'from 50 up: class high, before all others; below 0: low, after them; within a class it orders your own jobs', wholeNumber(-100, 100))
    .option('--worker-label <key=value>', 'run only on a worker with this label; repeatable', keyValue)
    .option('--no-share', 'a worker to itself, also where the team lets its small jobs share')
    .option('--after <ids>', 'start only when these jobs have succeeded', nameList)
    .option('--metadata <key=value>', 'label; repeatable', keyValue)
    .option('--watch', 'show the job until it ends');
}

/** The request those options stand for. What is not given is left to the server's defaults. */
export function createJobRequest(options: CreateJobOptions, trainingFile: string, validationFile: string | undefined): CreateFineTuningJob {
  const { method = 'supervised' } = options;
  if (options.beta !== undefined && method !== 'dpo') throw new TunefleetError('invalid_input', `--beta goes with --method dpo, not ${method}: leave it out`);
  const hyperparameters: DpoHyperparameters = dropAbsent({
    beta: options.beta,
    n_epochs: options.epochs,
    batch_size: options.batchSize,
    micro_batch_size: options.microBatchSize,
    learning_rate: options.learningRate,
    schedule: options.schedule,
    neftune_noise_alpha: options.neftuneNoiseAlpha,
    checkpoint_every_steps: options.checkpointEvery,
    validate_every_steps: options.validateEvery,
  });
  return {
    model: options.model,
    training_file: trainingFile,
    method: { type: method, [method]: { hyperparameters } },
    ...dropAbsent({
      tuner: tunerOf(options),
      validation_file: validationFile,
      suffix: options.suffix,
      seed: options.seed,
      max_seq_length: options.maxSeqLength,
      compute_dtype: options.computeDtype,
      priority: options.priority,
      worker_selector: options.workerLabel === undefined ? undefined : { ...options.workerLabel },
      // Commander's default of a --no-… option is true: as the team has it.
      share: options.share === false ? false : undefined,
      after: options.after === undefined ? undefined : [...options.after],
      metadata: options.metadata,
    }),
  };
}

/** Nothing, where nothing about it was asked. */
function tunerOf(options: CreateJobOptions): CreateFineTuningJob['tuner'] {
  const fields = tunerFields(options);
  return options.tuner === undefined && Object.keys(fields).length === 0 ? undefined : { kind: options.tuner ?? 'lora', ...fields };
}

function tunerFields(options: CreateJobOptions): Record<string, unknown> {
  const modules = options.targetModules;
  const extra = Object.entries(options.tunerOption ?? {}).map(([name, text]) => [name, parseValue(name, text)]);
  return {
    ...dropAbsent({
      r: options.rank,
      lora_alpha: options.alpha,
      lora_dropout: options.dropout,
      target_modules: modules?.length === 1 && modules[0]?.toLowerCase() === 'all-linear' ? 'all-linear' : modules,
    }),
    ...Object.fromEntries(extra),
  };
}

function parseValue(name: string, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new TunefleetError('invalid_input', `--tuner-option ${name}=${text}: the value is not JSON; put strings in double quotes`, { cause });
  }
}

type Present<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

function dropAbsent<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}

/** An uploaded file's id, or the absolute path of a local file to upload. */
export function fileOrPath(text: string): { readonly id: string } | { readonly path: string } {
  return /^file-[A-Za-z0-9]+$/.test(text) ? { id: text } : { path: resolve(text) };
}
