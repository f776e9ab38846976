import { randomInt } from 'node:crypto';
import { type createFineTuningJobSchema, type DpoHyperparameters, type FineTuneRequest } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';

export type CreateJobBody = z.output<typeof createFineTuningJobSchema>;

const SEED_MAX = 2_147_483_647;

/** What remains of a request besides names that must be looked up. @throws invalid_input for what is asked twice or cannot be had */
export function settleRequest(body: CreateJobBody): Pick<FineTuneRequest, 'method' | 'hyperparameters' | 'seed' | 'suffix' | 'maxSequenceLength' | 'computeDtype' | 'share'> {
  const method = methodOf(body);
  const hyperparameters = hyperparametersOf(body, method);
  refuseContradictions(hyperparameters);
  return {
    ...(method === 'supervised' ? {} : { method }),
    hyperparameters,
    seed: body.seed ?? randomInt(SEED_MAX),
    suffix: body.suffix ?? null,
    maxSequenceLength: body.max_seq_length ?? null,
    computeDtype: body.compute_dtype ?? 'auto',
    ...(body.share === undefined ? {} : { share: body.share }),
  };
}

type Method = 'supervised' | NonNullable<FineTuneRequest['method']>;

function methodOf(body: CreateJobBody): Method {
  const type = body.method?.type ?? 'supervised';
  if (type === 'reinforcement') {
    throw new TunefleetError('invalid_input', `the method '${type}' is not supported: use 'supervised', 'dpo' or 'pretraining'`, { reason: 'unsupported_method', param: 'method.type' });
  }
  for (const other of ['supervised', 'dpo', 'pretraining', 'reinforcement'] as const) {
    if (other !== type && body.method?.[other] !== undefined) throw new TunefleetError('invalid_input', `method.${other} does not go with the method '${type}': leave it out`, { reason: 'invalid_value', param: `method.${other}` });
  }
  if ((body.integrations ?? []).length > 0) {
    throw new TunefleetError('invalid_input', 'integrations are not supported: leave them out, and read metrics from /api/v1/jobs/{id}/metrics', { reason: 'unsupported_integration', param: 'integrations' });
  }
  return type;
}

/** The deprecated place and the new one may both be filled as long as they agree. */
function hyperparametersOf(body: CreateJobBody, method: Method): DpoHyperparameters {
  const old: Readonly<Record<string, unknown>> = body.hyperparameters ?? {};
  const current: Readonly<Record<string, unknown>> = body.method?.[method]?.hyperparameters ?? {};
  for (const name of Object.keys(old)) {
    if (name in current && current[name] !== old[name]) {
      throw new TunefleetError('invalid_input', `hyperparameters.${name} is ${String(old[name])}, but method.${method}.hyperparameters.${name} is ${String(current[name])}: give it once`, {
        reason: 'conflicting_hyperparameters',
        param: `hyperparameters.${name}`,
      });
    }
  }
  return { ...old, ...current };
}

function refuseContradictions(hyperparameters: DpoHyperparameters): void {
  const { learning_rate: rate = 'auto', learning_rate_multiplier: multiplier = 'auto', batch_size: batch = 'auto', micro_batch_size: microBatch } = hyperparameters;
  if (rate !== 'auto' && multiplier !== 'auto') {
    throw new TunefleetError('invalid_input', 'learning_rate and learning_rate_multiplier exclude each other: give one of them', { reason: 'conflicting_hyperparameters', param: 'hyperparameters.learning_rate' });
  }
  if (batch !== 'auto' && microBatch !== undefined && microBatch > batch) {
    throw new TunefleetError('invalid_input', `micro_batch_size ${microBatch} is larger than batch_size ${batch}: make it at most as large`, { reason: 'invalid_value', param: 'hyperparameters.micro_batch_size' });
  }
}
