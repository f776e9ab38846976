import { cloneEvalSchema, cloneFineTuningJobSchema, createEvalSchema, createFineTuningJobSchema, evalRequestSchema, fineTuneRequestSchema, type CloneJob, type DpoHyperparameters, type FineTuneRequest } from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';
import type { JobRecord } from '@tunefleet/ports';
import { z } from 'zod';
import { inputError } from '../http/input-error';

type FineTuneBody = z.output<typeof createFineTuningJobSchema>;
type EvalBody = z.output<typeof createEvalSchema>;

/**
 * The request that makes a fine-tune job like this one. What the original left open is left open again and settled for the files and the model
 * of the copy; its seed is kept.
 * @param changes fields of the copy's own; null: as if the original had not had the field. @throws invalid_input
 */
export function copyFineTune(job: JobRecord, changes: CloneJob): FineTuneBody {
  const parsed = fineTuneRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold a fine-tune request`);
  const { model, trainingFile, validationFile, suffix, seed, computeDtype, ...request } = parsed.data;
  const asked = request.asked ?? { hyperparameters: withoutMultiplier(request.hyperparameters), tuner: request.tuner, maxSequenceLength: request.maxSequenceLength };
  const { kept, dropped } = withoutNulls(changes);
  const { method, hyperparameters, ...others } = checked(cloneFineTuningJobSchema, kept);
  const type = methodOf(request.method, { kept, dropped });
  const own: DpoHyperparameters = { ...hyperparameters, ...(type === 'reinforcement' ? {} : method?.[type]?.hyperparameters) };
  const { beta, ...common } = asked.hyperparameters;
  const left = type === 'dpo' && beta !== undefined ? { ...common, beta } : common;
  const original = {
    model,
    training_file: trainingFile,
    ...present({ validation_file: validationFile, suffix, tuner: asked.tuner, max_seq_length: asked.maxSequenceLength, metadata: job.metadata }),
    seed,
    compute_dtype: computeDtype,
    priority: job.priority,
    worker_selector: job.workerSelector,
    ...(request.share === undefined ? {} : { share: request.share }),
  };
  return checked(createFineTuningJobSchema, {
    ...without(original, dropped),
    ...others,
    method: { ...method, type, [type]: { hyperparameters: mergeHyperparameters(without(left, droppedParameters(dropped, left)), own) } },
  });
}

/** The same for an eval. @throws invalid_input */
export function copyEval(job: JobRecord, changes: CloneJob): EvalBody {
  const parsed = evalRequestSchema.safeParse(job.spec);
  invariant(parsed.success, `the record of job ${job.id} does not hold an eval request`);
  const { model, compareTo, file, metric, limit, samples, maxSequenceLength, computeDtype, baseQuantisation } = parsed.data;
  const { kept, dropped } = withoutNulls(changes);
  const original = {
    ...(baseQuantisation === undefined ? {} : { base_quantisation: { type: baseQuantisation.type, double_quant: baseQuantisation.doubleQuant } }),
    ...{ model, compare_to: compareTo, file, metric, samples, compute_dtype: computeDtype, priority: job.priority, worker_selector: job.workerSelector },
    ...present({ limit, max_seq_length: maxSequenceLength, metadata: job.metadata }),
  };
  return checked(createEvalSchema, { ...without(original, dropped), ...checked(cloneEvalSchema, kept) });
}

/** The copy's own method, or the original's where it says nothing of it. */
function methodOf(original: FineTuneRequest['method'], { kept, dropped }: ReturnType<typeof withoutNulls>): NonNullable<FineTuneBody['method']>['type'] {
  const { type } = z.object({ type: z.enum(['supervised', 'dpo', 'pretraining', 'reinforcement']).optional() }).parse(kept['method'] ?? {});
  return type ?? (dropped.includes('method') ? undefined : original) ?? 'supervised';
}

/** Objects of `changes` that hold more fields; others are values as a whole. */
const METHODS = ['supervised', 'dpo', 'pretraining'];
const HOLDERS: ReadonlySet<string> = new Set(['hyperparameters', 'method', ...METHODS.flatMap((method) => [`method.${method}`, `method.${method}.hyperparameters`])]);

/** @returns the changes without what is null, and the paths of that */
function withoutNulls(changes: CloneJob, prefix = ''): { readonly kept: Record<string, unknown>; readonly dropped: readonly string[] } {
  const kept: Record<string, unknown> = {};
  const dropped: string[] = [];
  for (const [name, value] of Object.entries(changes)) {
    const path = `${prefix}${name}`;
    if (value === null) dropped.push(path);
    else if (HOLDERS.has(path) && typeof value === 'object' && !Array.isArray(value)) {
      const inner = withoutNulls(value as CloneJob, `${path}.`);
      kept[name] = inner.kept;
      dropped.push(...inner.dropped);
    } else kept[name] = value;
  }
  return { kept, dropped };
}

/** Names of hyperparameters, under either of the paths they go by. */
function droppedParameters(dropped: readonly string[], asked: DpoHyperparameters): readonly string[] {
  if (dropped.some((path) => HOLDERS.has(path))) return Object.keys(asked);
  return dropped.flatMap((path) => /^(?:method\.[a-z]+\.)?hyperparameters\.(.+)$/.exec(path)?.[1] ?? []);
}

function without<T extends object>(fields: T, names: readonly string[]): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name))) as Partial<T>;
}

/** Two names of one rate: the copy's own choice replaces both. */
function mergeHyperparameters(asked: DpoHyperparameters, own: DpoHyperparameters): DpoHyperparameters {
  if (own.learning_rate === undefined && own.learning_rate_multiplier === undefined) return { ...asked, ...own };
  const { learning_rate: _rate, ...rest } = asked;
  return { ...withoutMultiplier(rest), ...own };
}

function withoutMultiplier(hyperparameters: DpoHyperparameters): DpoHyperparameters {
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
