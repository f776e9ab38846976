import { cloneEvalSchema, cloneFineTuningJobSchema, createEvalSchema, createFineTuningJobSchema, evalRequestSchema, fineTuneRequestSchema, type CloneJob, type SupervisedHyperparameters } from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';
import type { JobRecord } from '@tunefleet/ports';
import type { z } from 'zod';
import { inputError } from '../http/input-error';

type FineTuneBody = z.output<typeof createFineTuningJobSchema>;
type EvalBody = z.output<typeof createEvalSchema>;

/**
 * The request that makes a fine-tune job like this one. What the original left open is left open again and settled for the files and the model
 * of the copy; its seed is kept.
 * @param changes fields of the copy's own. @throws invalid_input
 */
export function copyFineTune(job: JobRecord, changes: CloneJob): FineTuneBody {
  const parsed = fineTuneRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold a fine-tune request`);
  const { model, trainingFile, validationFile, suffix, seed, computeDtype, ...request } = parsed.data;
  const asked = request.asked ?? { hyperparameters: withoutMultiplier(request.hyperparameters), tuner: request.tuner, maxSequenceLength: request.maxSequenceLength };
  const { method, hyperparameters, ...others } = checked(cloneFineTuningJobSchema, changes);
  const own = { ...hyperparameters, ...method?.supervised?.hyperparameters };
  return checked(createFineTuningJobSchema, {
    model,
    training_file: trainingFile,
    ...present({ validation_file: validationFile, suffix, tuner: asked.tuner, max_seq_length: asked.maxSequenceLength, metadata: job.metadata }),
    seed,
    compute_dtype: computeDtype,
    priority: job.priority,
    worker_selector: job.workerSelector,
    ...others,
    method: { ...method, type: method?.type ?? 'supervised', supervised: { hyperparameters: mergeHyperparameters(asked.hyperparameters, own) } },
  });
}

/** The same for an eval. @throws invalid_input */
export function copyEval(job: JobRecord, changes: CloneJob): EvalBody {
  const parsed = evalRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold an eval request`);
  const { model, compareTo, file, metric, limit, samples, maxSequenceLength, computeDtype } = parsed.data;
  return checked(createEvalSchema, {
    ...{ model, compare_to: compareTo, file, metric, samples, compute_dtype: computeDtype, priority: job.priority, worker_selector: job.workerSelector },
    ...present({ limit, max_seq_length: maxSequenceLength, metadata: job.metadata }),
    ...checked(cloneEvalSchema, changes),
  });
}

/** Two names of one rate: the copy's own choice replaces both. */
function mergeHyperparameters(asked: SupervisedHyperparameters, own: SupervisedHyperparameters): SupervisedHyperparameters {
  if (own.learning_rate === undefined && own.learning_rate_multiplier === undefined) return { ...asked, ...own };
  const { learning_rate: _rate, ...rest } = asked;
  return { ...withoutMultiplier(rest), ...own };
}

function withoutMultiplier(hyperparameters: SupervisedHyperparameters): SupervisedHyperparameters {
  const { learning_rate_multiplier: _multiplier, ...rest } = hyperparameters;
  return rest;
}

function checked<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const parsed = schema.safeParse(input);
  if (!parsed.success) throw inputError(parsed.error, input);
  return parsed.data;
}

function present(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}
