import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { canonicalJson, errorMessage, sha256Hex, TunefleetError } from '@tunefleet/foundation';
import { SafetensorsFile, writeSafetensors } from '@tunefleet/ml-formats';
import type { FloatDType } from '@tunefleet/ml-tensor';
import type { Tuner } from '@tunefleet/ml-tuners';
import { z } from 'zod';
import type { Batching } from './settings';
import type { TrainerState } from './trainer-state';

export const STATE_JSON = 'trainer_state.json';
export const STATE_TENSORS = 'trainer_state.safetensors';
const FORMAT = 1;
const EXTRA = 'extra.';

/** What a state belongs to; a run with any other value must not go on from it. */
export interface RunIdentity {
  /** `id@revision` of the base model. */
  readonly model: string;
  /** Fingerprint of the tokenised training data. */
  readonly dataset: string;
  /** Fingerprint of all settings, the tuner's included; see `fingerprintOf`. */
  readonly settings: string;
}

/** What the run settled for by itself and must keep, so that a resumed run computes the same bits. */
export interface RunChoices extends Omit<Batching, 'keptStems'> {
  readonly computeDtype: FloatDType;
  readonly weightDtype: FloatDType;
  /** Hidden states kept at most; absent: none. See `KeptStems`. */
  readonly keptStemBytes?: number;
}

export interface Checkpoint {
  readonly identity: RunIdentity;
  readonly choices: RunChoices;
  readonly state: TrainerState;
  /** Numbers of the caller's, handed back when the run is resumed. */
  readonly notes?: Readonly<Record<string, number>>;
  /** Arrays of the caller's, by name. */
  readonly extras?: ReadonlyMap<string, Float32Array>;
}

const count = z.int().min(0);
const stateSchema = z.object({
  format: z.literal(FORMAT),
  identity: z.object({ model: z.string(), dataset: z.string(), settings: z.string() }),
  choices: z.object({ computeDtype: z.enum(['f32', 'bf16']), weightDtype: z.enum(['f32', 'bf16']), microBatchSize: z.int().min(1), recomputeBlocks: z.boolean(), keepStems: z.union([z.boolean(), count]).default(false) }),
  /** Names and shapes of the parameters. */
  parameters: z.string(),
  step: count,
  updates: count,
  trainedTokens: count,
  lossTokens: count,
  lossFirst: z.number().nullable(),
  lossLast: z.number().nullable(),
  notes: z.record(z.string(), z.number()),
});

export function fingerprintOf(value: unknown): string {
  return sha256Hex(canonicalJson(value));
}

/** Writes the two state files into an existing folder, each complete or not at all. */
export async function saveCheckpoint(folder: string, { identity, choices, state, notes = {}, extras = new Map() }: Checkpoint, tuner: Tuner): Promise<void> {
  const { values, moments } = state;
  const arrays = new Map([
    ['values', values],
    ['adamw.m', moments.m],
    ['adamw.v', moments.v],
    ...[...extras].map(([name, array]): [string, Float32Array] => [`${EXTRA}${name}`, array]),
  ]);
  const declarations = [...arrays].map(([name, array]) => ({ name, dtype: 'F32' as const, shape: [array.length] }));
  await writeSafetensors(join(folder, STATE_TENSORS), declarations, ({ name }) => bytesOf(arrays.get(name) as Float32Array));
  const json: z.infer<typeof stateSchema> = {
    format: FORMAT,
    identity: { ...identity },
    choices: { computeDtype: choices.computeDtype, weightDtype: choices.weightDtype, microBatchSize: choices.microBatchSize, recomputeBlocks: choices.recomputeBlocks, keepStems: choices.keptStemBytes ?? 0 },
    parameters: fingerprintOf(tuner.parameters.map(({ name, shape }) => ({ name, shape }))),
    step: state.step,
    updates: moments.updates,
    trainedTokens: state.trainedTokens,
    lossTokens: state.lossTokens,
    lossFirst: state.lossFirst,
    lossLast: state.lossLast,
    notes: { ...notes },
  };
  await writeFile(join(folder, STATE_JSON), `${JSON.stringify(json, null, 2)}\n`, { flush: true });
}

/** A checkpoint whose small part was read: enough to prepare the run, before model and tuner exist. */
export class SavedCheckpoint {
  private constructor(
    private readonly folder: string,
    private readonly json: z.infer<typeof stateSchema>,
  ) {}

  /** @throws TunefleetError `incompatible_artifact` when the folder is no checkpoint of ours or of another format */
  static async open(folder: string): Promise<SavedCheckpoint> {
    let value: unknown;
    try {
      value = JSON.parse(await readFile(join(folder, STATE_JSON), 'utf8'));
    } catch (error) {
      throw refuse(`${STATE_JSON} cannot be read (${errorMessage(error)})`, error);
    }
    const parsed = stateSchema.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      throw refuse(`${STATE_JSON} is not of format ${FORMAT}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? ''}`);
    }
    return new SavedCheckpoint(folder, parsed.data);
  }

  get step(): number {
    return this.json.step;
  }

  get choices(): RunChoices {
    const { keepStems, ...choices } = this.json.choices;
    // Older releases kept all or nothing.
    return { ...choices, keptStemBytes: typeof keepStems === 'number' ? keepStems : keepStems ? Number.MAX_SAFE_INTEGER : 0 };
  }

  get notes(): Readonly<Record<string, number>> {
    return this.json.notes;
  }

  /** One of `extras`. @throws TunefleetError `incompatible_artifact` when it is not there or of another length */
  extra(name: string, length: number): Float32Array {
    using file = SafetensorsFile.open(join(this.folder, STATE_TENSORS));
    return readVector(file, `${EXTRA}${name}`, length);
  }

  /**
   * The exact state of then, for a run of the same model, data and settings.
   * @throws TunefleetError `incompatible_artifact` saying what differs, or that the tensors are damaged
   */
  load(identity: RunIdentity, tuner: Tuner): TrainerState {
    const saved = this.json.identity;
    if (saved.model !== identity.model) throw refuse(`it was made with the base model ${saved.model}, this job uses ${identity.model}`);
    if (saved.dataset !== identity.dataset) throw refuse('it was made with other training data, another tokenizer or another maximum length');
    if (saved.settings !== identity.settings) throw refuse('it was made with other hyper-parameters or another tuner');
    if (this.json.parameters !== fingerprintOf(tuner.parameters.map(({ name, shape }) => ({ name, shape })))) throw refuse('the tuner has other parameters now');
    using file = SafetensorsFile.open(join(this.folder, STATE_TENSORS));
    const read = (name: string): Float32Array => readVector(file, name, tuner.parameterCount);
    const { step, updates, trainedTokens, lossTokens, lossFirst, lossLast } = this.json;
    return { values: read('values'), moments: { m: read('adamw.m'), v: read('adamw.v'), updates }, step, trainedTokens, lossTokens, lossFirst, lossLast };
  }
}

function readVector(file: SafetensorsFile, name: string, length: number): Float32Array {
  const { dtype, shape } = file.entry(name);
  if (dtype !== 'F32' || shape.length !== 1 || shape[0] !== length) throw refuse(`tensor "${name}" is ${dtype} [${shape.join(', ')}], expected F32 [${length}]`);
  return new Float32Array(file.read(name).buffer);
}

function bytesOf(array: Float32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function refuse(why: string, cause?: unknown): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the checkpoint cannot be resumed from: ${why}. Start the job again without it`, { reason: 'bad_checkpoint', cause });
}
