import type { FineTuneSpec } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { ModelHook } from '@tunefleet/ml-nn';
import { nextToken, PreferenceObjective, referenceLogProbs, type Objective, type SavedCheckpoint } from '@tunefleet/ml-training';
import type { OpenedModel } from '../runtime/engine-resources';
import type { JobContext } from '../runtime/job-context';
import { yieldToEventLoop } from '../runtime/stop-request';

export interface ObjectiveRequest {
  readonly opened: OpenedModel;
  readonly training: TokenisedDataset;
  readonly validation: TokenisedDataset | null;
  readonly checkpoint: SavedCheckpoint | null;
  /** Pairs per pass. */
  readonly microBatchSize: number;
  /** The policy a run that goes on from an adapter starts with; null: the base model. For as long as `use` runs. */
  withStartPolicy<T>(use: (adapter: ModelHook | null) => Promise<T>): Promise<T>;
}

export interface PreparedObjective {
  readonly objective: Objective;
  /** What checkpoints keep of it, so that a resumed run computes the same bits. */
  readonly extras: ReadonlyMap<string, Float32Array>;
}

export function groupSizeOf({ objective }: FineTuneSpec): number {
  return objective?.type === 'dpo' ? 2 : 1;
}

/**
 * What the run minimises. For preferences the reference's log-probabilities are computed once, before the first step, and kept in every checkpoint. The reference
 * is the policy the run starts from: the base model, with no adapter, for a fresh one; the start adapter for a run that goes on from one.
 */
export async function prepareObjective(context: JobContext<FineTuneSpec>, { opened, training, validation, checkpoint, microBatchSize, withStartPolicy }: ObjectiveRequest): Promise<PreparedObjective> {
  const { spec, events, stop, clock } = context;
  if (spec.objective?.type !== 'dpo') return { objective: nextToken, extras: new Map() };
  const datasets = new Map([['reference.training', training], ...(validation === null ? [] : [['reference.validation', validation] as const])]);
  const extras = new Map<string, Float32Array>();
  if (checkpoint !== null) {
    for (const [name, dataset] of datasets) extras.set(name, checkpoint.extra(name, dataset.length));
  } else {
    const started = clock.monotonic();
    events.progress({ step: 0, totalSteps: 0, phase: 'reference', tokensPerSecond: 0, etaSeconds: 0 });
    const shouldStop = async (): Promise<boolean> => {
      await yieldToEventLoop();
      return stop.wanted !== null;
    };
    await withStartPolicy(async (adapter) => {
      for (const [name, dataset] of datasets) {
        const reference = await referenceLogProbs({ model: opened.model, adapter, dataset, microBatchSize }, shouldStop);
        if (reference === null) throw new TunefleetError('cancelled', 'stopped while the reference was computed');
        extras.set(name, reference);
      }
    });
    const policy = spec.startAdapter === undefined ? 'the base model' : 'the start adapter';
    events.log('info', `log-probabilities of ${policy}, to which beta ${spec.objective.beta} holds the tuned model: computed in ${((clock.monotonic() - started) / 1000).toFixed(1)} s`);
  }
  const references = new Map([...datasets].map(([name, dataset]) => [dataset, extras.get(name) as Float32Array]));
  return { objective: new PreferenceObjective(spec.objective.beta, references), extras };
}
