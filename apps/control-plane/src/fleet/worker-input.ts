import { artifactListSchema, failureClassSchema, failureSchema, type Failure, type fleet } from '@tunefleet/contracts';
import { TunefleetError, type JsonObject, type JsonValue } from '@tunefleet/foundation';
import type { AttemptKey, WorkerEvent } from '@tunefleet/ports';
import { z } from 'zod';

/** What a worker says, checked and bounded: nothing else of the fleet code reads the wire types of incoming messages. */

const LABELS_MAX = 64;
/** Far more than share a pass to advantage. */
const SLOTS_MAX = 64;

const idSchema = z.string().regex(/^[A-Za-z0-9_-]{1,80}$/, 'an id');
const countSchema = z.int().min(0);
const numberMapSchema = z.record(z.string().min(1).max(100), z.number()).refine((map) => Object.keys(map).length <= 100, 'at most 100 values');
const modelsSchema = z.array(z.string().max(400)).max(1000);
const optionalModelSchema = z.string().max(400).transform((model) => (model === '' ? null : model));

const attemptKeySchema = z.object({ jobId: idSchema, attemptId: idSchema, epoch: z.int().min(1) }) satisfies z.ZodType<AttemptKey>;
const runningSchema = z.array(z.object({ attempt: attemptKeySchema, step: countSchema, lastSeq: countSchema })).max(2 * SLOTS_MAX);

/** JSON in a string field: an object, or nothing. */
const jsonFieldSchema = z
  .string()
  .max(256 * 1024)
  .transform((text, context): JsonObject | null => {
    if (text === '') return null;
    try {
      return z.record(z.string(), z.json()).parse(JSON.parse(text)) as JsonObject;
    } catch {
      context.addIssue({ code: 'custom', message: 'not a JSON object' });
      return z.NEVER;
    }
  });

const nameSchema = z.string().min(1).max(100);
const labelsSchema = z.record(z.string().max(100), z.string().max(400)).refine((labels) => Object.keys(labels).length <= LABELS_MAX, `at most ${LABELS_MAX} labels`);

const helloSchema = z.object({
  // Whichever it is: the session says what is too old, in words.
  protocolVersion: countSchema,
  workerId: idSchema,
  bootId: idSchema,
  name: nameSchema,
  version: z.string().max(100),
  device: z.object({
    kind: z.enum(['gpu', 'cpu']),
    name: z.string().max(200),
    backend: z.string().max(100),
    backendVersion: z.string().max(100),
    memoryBytesTotal: countSchema,
    memoryBytesFree: countSchema,
    bf16: z.boolean(),
    threads: countSchema,
  }),
  modelsOnDisk: modelsSchema,
  modelInMemory: optionalModelSchema,
  running: runningSchema,
  labels: labelsSchema,
  jobKinds: z.array(z.string().min(1).max(60)).max(50),
  // 0 on the wire: an older worker.
  slots: countSchema.max(SLOTS_MAX).transform((slots) => Math.max(1, slots)),
});
export type HelloInput = z.infer<typeof helloSchema>;

const creditSchema = z.object({ jobs: countSchema.max(SLOTS_MAX), modelsOnDisk: modelsSchema, modelInMemory: optionalModelSchema });
const beatSchema = z.object({ seq: countSchema, memoryBytesFree: countSchema, running: runningSchema });

const payloadSchema = z.discriminatedUnion('$case', [
  z.object({
    $case: z.literal('log'),
    value: z.object({ level: z.enum(['info', 'warn', 'error']), message: z.string().max(8000), dataJson: jsonFieldSchema }),
  }),
  z.object({ $case: z.literal('metrics'), value: z.object({ step: countSchema, values: numberMapSchema }) }),
  z.object({
    $case: z.literal('checkpoint'),
    value: z.object({ step: countSchema, artifacts: artifactListSchema.min(1), metrics: numberMapSchema }),
  }),
  z.object({
    $case: z.literal('progress'),
    value: z.object({
      step: countSchema,
      totalSteps: countSchema,
      phase: z.string().max(40),
      tokensPerSecond: z.number().min(0),
      etaSeconds: z.number().min(0),
      microBatchSize: countSchema,
    }),
  }),
]);
/** Absent: an event of a newer worker. Its number must not be missing. */
const eventSchema = z.object({ seq: z.int().min(1), payload: payloadSchema.optional() });
const eventBatchSchema = z.object({ attempt: attemptKeySchema, events: z.array(eventSchema).min(1).max(1000) });

const finishedSchema = z.object({
  attempt: attemptKeySchema,
  lastSeq: countSchema,
  outcome: z.discriminatedUnion('$case', [
    z.object({ $case: z.literal('succeeded'), value: z.object({ resultJson: jsonFieldSchema, artifacts: artifactListSchema }) }),
    z.object({
      $case: z.literal('failed'),
      value: z
        .object({
          failureClass: failureClassSchema,
          code: failureSchema.shape.code,
          message: failureSchema.shape.message,
          param: z.string().max(100),
          logTail: z.array(z.string().max(2000)).max(50),
        })
        .transform(({ failureClass, param, ...rest }): Failure => ({ ...rest, class: failureClass, param: param === '' ? null : param })),
    }),
    z.object({ $case: z.literal('stopped'), value: z.object({ reason: z.string().max(100) }) }),
  ]),
});
export type FinishedInput = z.infer<typeof finishedSchema>;

const assignAckSchema = z.object({ attempt: attemptKeySchema, accepted: z.boolean(), reason: z.string().max(1000) });

const messageSchema = z.discriminatedUnion('$case', [
  z.object({ $case: z.literal('hello'), value: helloSchema }),
  z.object({ $case: z.literal('credit'), value: creditSchema }),
  z.object({ $case: z.literal('beat'), value: beatSchema }),
  z.object({ $case: z.literal('events'), value: eventBatchSchema.transform((batch) => ({ key: batch.attempt, events: batch.events.map(toWorkerEvent) })) }),
  z.object({ $case: z.literal('finished'), value: finishedSchema }),
  z.object({ $case: z.literal('assignAck'), value: assignAckSchema }),
]);
export type WorkerInput = z.infer<typeof messageSchema>;

/** @throws invalid_input naming the field at fault */
export function parseWorkerMessage(message: fleet.WorkerMessage): WorkerInput {
  return parseWith(messageSchema, message.message, 'worker message');
}

const joinSchema = z.object({ workerId: idSchema, secret: z.string().regex(/^[A-Za-z0-9_-]{43}$/, '32 bytes in base64url'), name: nameSchema, labels: labelsSchema });
export type JoinInput = z.infer<typeof joinSchema>;

/** @throws invalid_input naming the field at fault */
export function parseJoin(request: fleet.JoinRequest): JoinInput {
  return parseWith(joinSchema, request, 'join request');
}

const artifactHeaderSchema = z.object({ attempt: attemptKeySchema, artifact: artifactListSchema.element });

/** @throws invalid_input naming the field at fault */
export function parseArtifactHeader(request: fleet.PutArtifactRequest): z.infer<typeof artifactHeaderSchema> {
  const part = request.part;
  if (part?.$case !== 'header') throw new TunefleetError('invalid_input', 'an artifact upload must start with its header');
  return parseWith(artifactHeaderSchema, part.value, 'artifact header');
}

const artifactRequestSchema = z.object({ attempt: attemptKeySchema, sha256: artifactListSchema.element.shape.sha256, offset: countSchema });

/** @throws invalid_input naming the field at fault */
export function parseArtifactRequest(request: fleet.GetArtifactRequest): z.infer<typeof artifactRequestSchema> {
  return parseWith(artifactRequestSchema, request, 'artifact request');
}

function parseWith<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new TunefleetError('invalid_input', `${what}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}`, {
    reason: 'invalid_message',
  });
}

function toWorkerEvent(event: z.infer<typeof eventSchema>): WorkerEvent {
  const { seq, payload } = event;
  if (payload === undefined) return { seq, type: 'log', level: 'info', message: 'The worker told something that this control plane is too old to know', data: null };
  switch (payload.$case) {
    case 'log':
      return { seq, type: 'log', level: payload.value.level, message: payload.value.message, data: payload.value.dataJson as JsonValue };
    case 'metrics':
      return { seq, type: 'metrics', ...payload.value };
    case 'checkpoint':
      return { seq, type: 'checkpoint', ...payload.value };
    case 'progress':
      return { seq, type: 'progress', ...withoutUnknownSize(payload.value) };
  }
}

/** 0 on the wire: an older worker, or a kind without batches. */
function withoutUnknownSize<T extends { readonly microBatchSize: number }>({ microBatchSize, ...progress }: T) {
  return { ...progress, ...(microBatchSize > 0 ? { microBatchSize } : {}) };
}
