import { artifactRefSchema, failureSchema } from '@tunefleet/contracts';
import { z } from 'zod';

/**
 * What the agent and its engine process say to each other over Node's IPC channel. They are separate processes so that a
 * crash or an out-of-memory kill in native code takes neither the lease nor unsent events with it. Bulk data passes
 * through folders that the agent owns.
 */
export const deviceReportSchema = z.object({
  kind: z.enum(['gpu', 'cpu']),
  name: z.string(),
  backend: z.string(),
  backendVersion: z.string(),
  memoryBytesTotal: z.int(),
  memoryBytesFree: z.int(),
  bf16: z.boolean(),
  threads: z.int(),
});
export type DeviceReport = z.infer<typeof deviceReportSchema>;

export const toEngineSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('run'),
    /** Repeated in every answer; answers of an earlier run are dropped by it. */
    runId: z.string(),
    kind: z.string(),
    schemaVersion: z.int(),
    spec: z.record(z.string(), z.unknown()),
    /** Every input artifact of the spec, by hash, as a local file. */
    inputFiles: z.record(z.string(), z.string()),
    /** Folder of the checkpoint to resume from; null: from the start. */
    resumeDir: z.string().nullable(),
    /** Empty folder for checkpoints (`ckpt-<step>/`) and results (`result/`). */
    outputDir: z.string(),
  }),
  /** `checkpoint: true`: write one first, then answer `stopped`. */
  z.object({ type: z.literal('stop'), runId: z.string(), checkpoint: z.boolean() }),
  z.object({ type: z.literal('exit') }),
]);
export type ToEngine = z.infer<typeof toEngineSchema>;

const eventBase = { runId: z.string() };

export const fromEngineSchema = z.discriminatedUnion('type', [
  /** First message after the device is open. */
  z.object({ type: z.literal('ready'), device: deviceReportSchema, jobKinds: z.array(z.string()) }),
  z.object({ type: z.literal('log'), ...eventBase, level: z.enum(['info', 'warn', 'error']), message: z.string(), data: z.unknown().optional() }),
  z.object({ type: z.literal('metrics'), ...eventBase, step: z.int(), values: z.record(z.string(), z.number()) }),
  z.object({
    type: z.literal('progress'),
    ...eventBase,
    step: z.int(),
    totalSteps: z.int(),
    phase: z.string(),
    tokensPerSecond: z.number(),
    etaSeconds: z.number(),
    /** Examples per forward pass, of kinds that train. */
    microBatchSize: z.int().min(1).optional(),
  }),
  /** The folder is complete and will not change; the agent uploads it, reports it, then removes it. */
  z.object({
    type: z.literal('checkpoint'),
    ...eventBase,
    step: z.int(),
    dir: z.string(),
    files: z.array(artifactRefSchema),
    metrics: z.record(z.string(), z.number()),
  }),
  z.object({ type: z.literal('model'), ...eventBase, /** "id@revision" now in device memory. */ inMemory: z.string().nullable(), onDisk: z.array(z.string()) }),
  z.object({
    type: z.literal('succeeded'),
    ...eventBase,
    result: z.record(z.string(), z.unknown()),
    dir: z.string(),
    files: z.array(artifactRefSchema),
  }),
  z.object({ type: z.literal('failed'), ...eventBase, failure: failureSchema }),
  z.object({ type: z.literal('stopped'), ...eventBase }),
]);
export type FromEngine = z.infer<typeof fromEngineSchema>;
