import { z } from 'zod';
import { artifactRefSchema } from '../jobs/artifact';
import { unixSecondsSchema } from '../openai/common';

/** Tuned weights on record: a folder in PEFT's format. */
export const adapterSchema = z.object({
  id: z.string(),
  object: z.literal('adapter'),
  /** The callable name, `ft:…`. */
  name: z.string(),
  base_model: z.string(),
  base_revision: z.string(),
  tuner: z.string(),
  job_id: z.string(),
  created_at: unixSecondsSchema,
  files: z.array(artifactRefSchema),
});
export type AdapterView = z.infer<typeof adapterSchema>;
export const adapterListSchema = z.object({ object: z.literal('list'), data: z.array(adapterSchema), has_more: z.literal(false) });

/** `POST /api/v1/workers/:id/cordon`. */
export const cordonSchema = z.strictObject({ reason: z.string().min(1).max(400).optional() }).optional();

/**
 * `POST /api/v1/workers/:id/drain`: `wait` lets its job end, within `deadline_seconds` if given; `move` lets the job write a checkpoint and go on
 * elsewhere at once.
 */
export const drainSchema = z
  .strictObject({ mode: z.enum(['wait', 'move']).default('wait'), deadline_seconds: z.int().min(0).max(30 * 86_400).optional() })
  .prefault({});
export type DrainWorker = z.input<typeof drainSchema>;

/** `GET /api/v1/workers`; `POST /api/v1/workers/:id/cordon`, `…/uncordon`, `…/drain`, `…/undrain` answer with the worker: a cordoned one gets no new jobs. */
export const workerSchema = z.object({
  id: z.string(),
  object: z.literal('worker'),
  name: z.string(),
  status: z.enum(['online', 'suspect', 'offline']),
  cordoned: z.boolean(),
  /** Why, also when it was the service that did it. */
  cordon_reason: z.string().nullable(),
  drain: z
    .object({
      mode: z.enum(['wait', 'move']),
      /** `drained`: it runs nothing any more and can be taken away. */
      state: z.enum(['draining', 'drained']),
      deadline: unixSecondsSchema.nullable(),
    })
    .nullable(),
  version: z.string(),
  device: z.object({
    kind: z.enum(['gpu', 'cpu']),
    name: z.string(),
    backend: z.string(),
    backend_version: z.string(),
    memory_bytes_total: z.int().min(0),
    memory_bytes_free: z.int().min(0),
    bf16: z.boolean(),
    threads: z.int().min(0),
  }),
  labels: z.record(z.string(), z.string()),
  job_kinds: z.array(z.string()),
  models_on_disk: z.array(z.string()),
  model_in_memory: z.string().nullable(),
  /** Jobs it can run at once, of one base model. */
  slots: z.int().min(1),
  running_jobs: z.int().min(0),
  /** Jobs it would take now. */
  credit: z.int().min(0),
  last_seen_at: unixSecondsSchema,
});
export type WorkerView = z.infer<typeof workerSchema>;
export const workerListSchema = z.object({ object: z.literal('list'), data: z.array(workerSchema), has_more: z.literal(false) });

export const versionSchema = z.object({
  name: z.literal('tunefleet'),
  version: z.string(),
  queue_backend: z.enum(['redis', 'postgres']),
  /** Tuners this control plane accepts. */
  tuners: z.array(z.string()),
  job_kinds: z.array(z.string()),
});
export type VersionView = z.infer<typeof versionSchema>;

export const liveSchema = z.object({ status: z.literal('ok') });
export const readySchema = z.object({
  status: z.enum(['ok', 'unavailable']),
  checks: z.record(z.string(), z.object({ ok: z.boolean(), message: z.string().optional() })),
});
