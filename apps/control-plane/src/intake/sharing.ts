import type { FineTuneRequest, FineTuneSpec } from '@tunefleet/contracts';
import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import { fixedStates, sharedPasses, specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners/specs';
import type { JobAdmission } from '@tunefleet/ports';
import { totalBytes, type MemoryNeed } from './memory';

/** A step of more tokens keeps a device busy by itself. */
const STEP_TOKENS_MAX = 512;

export interface SharingFacts {
  readonly request: Pick<FineTuneRequest, 'share' | 'method'>;
  readonly workerSpec: Pick<FineTuneSpec, 'base' | 'computeDtype' | 'batchSize' | 'epochs' | 'neftuneNoiseAlpha'>;
  readonly model: CausalLmDescription;
  readonly tuner: TunerSpec;
  readonly examples: number;
  /** All of them once. */
  readonly tokensExpected: number;
  readonly memory: MemoryNeed;
}

export type Sharing = { readonly sharing: NonNullable<JobAdmission['sharing']> } | { readonly alone: string };

/** Whether a job may run beside others, and beside which, as far as it lies with the job; or why it gets a worker to itself. */
export function planSharing({ request, workerSpec, model, tuner, examples, tokensExpected, memory }: SharingFacts): Sharing {
  const { base, computeDtype, batchSize, epochs, neftuneNoiseAlpha } = workerSpec;
  if (request.share === false) return { alone: 'it was declined' };
  const passes = sharedPasses(tuner, model);
  const { title, baseQuantisation } = specHalfOf(tuner);
  if (passes === null) return { alone: `as it is set up, ${title} cannot share its passes through the model` };
  const stepTokens = Math.ceil((tokensExpected / examples) * Math.min(batchSize, examples));
  if (stepTokens > STEP_TOKENS_MAX) return { alone: `its steps have about ${stepTokens} tokens, and those of jobs that share at most ${STEP_TOKENS_MAX}` };
  // As the worker decides; noise on the embeddings makes all states new.
  if (epochs > 1 && neftuneNoiseAlpha === undefined && fixedStates(tuner, model) !== null) return { alone: 'what comes before its first trained block is kept from the first epoch on, which is faster alone' };
  const quantisation = baseQuantisation?.(tuner) ?? null;
  const stored = quantisation === null ? 'as-published' : `${quantisation.type}${quantisation.doubleQuant ? '-double' : ''}`;
  const { weights = 0 } = memory;
  return { sharing: { key: [`${base.id}@${base.revision}`, computeDtype, stored, request.method ?? 'supervised', passes].join('|'), memoryBytes: totalBytes(memory) - weights } };
}
