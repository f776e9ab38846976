import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { ENGINE_SILENCE_MS } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import { z } from 'zod';
import type { ClientTls } from './agent/channel';

const GIBIBYTE = 1024 ** 3;
const optionalText = z.preprocess((value) => (value === '' ? undefined : value), z.string().trim().min(1).optional());

const environmentSchema = z.object({
  TUNEFLEET_CONTROL_PLANE: z.string().regex(/^(grpcs?:\/\/)?[^/\s]+:\d{1,5}$/, 'host:port, or grpcs://host:port for TLS').default('127.0.0.1:8081'),
  TUNEFLEET_WORKER_TOKEN: optionalText.pipe(z.string().min(8, 'at least 8 characters').max(200).optional()),
  TUNEFLEET_TLS_CA: optionalText,
  TUNEFLEET_TLS_CERT: optionalText,
  TUNEFLEET_TLS_KEY: optionalText,
  TUNEFLEET_TLS_SERVER_NAME: optionalText,
  TUNEFLEET_WORKER_NAME: optionalText.pipe(
    z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'letters, digits, dot, hyphen, underscore; at most 64').optional(),
  ),
  TUNEFLEET_WORKER_LABELS: optionalText.transform((text, context) => {
    const labels = parseLabels(text ?? '');
    if (typeof labels === 'string') context.addIssue({ code: 'custom', message: labels });
    return typeof labels === 'string' ? {} : labels;
  }),
  TUNEFLEET_WORKER_SLOTS: z.coerce.number().int().min(1).max(64).default(8),
  TUNEFLEET_WORKER_STOP_SECONDS: z.coerce.number().int().min(1).max(3_600).default(30),
  TUNEFLEET_ENGINE_SILENCE_SECONDS: z.coerce.number().int().min(3).max(86_400).default(ENGINE_SILENCE_MS / 1_000),
  TUNEFLEET_DATA_DIR: z.string().min(1).default('.tunefleet'),
  TUNEFLEET_CACHE_DIR: optionalText,
  TUNEFLEET_ARTIFACT_CACHE_BYTES: z.coerce.number().int().min(0).default(20 * GIBIBYTE),
  TUNEFLEET_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
}).superRefine((env, context) => {
  const problem = (name: string, message: string): void => context.addIssue({ code: 'custom', path: [name], message });
  if ((env.TUNEFLEET_TLS_CERT === undefined) !== (env.TUNEFLEET_TLS_KEY === undefined)) problem('TUNEFLEET_TLS_CERT', 'needs TUNEFLEET_TLS_KEY, and the other way round');
  const isTls = env.TUNEFLEET_CONTROL_PLANE.startsWith('grpcs://');
  for (const name of ['TUNEFLEET_TLS_CERT', 'TUNEFLEET_TLS_CA', 'TUNEFLEET_TLS_SERVER_NAME'] as const) {
    if (env[name] !== undefined && !isTls) problem(name, 'has no effect unless TUNEFLEET_CONTROL_PLANE begins with grpcs://');
  }
});

export interface WorkerConfig {
  /** host:port */
  readonly controlPlane: string;
  /** Null: plain text. */
  readonly tls: ClientTls | null;
  /** What lets it join; null: it has joined before. */
  readonly joinToken: string | null;
  readonly name: string;
  /** What it offers besides its device, for jobs that ask for it. */
  readonly labels: Readonly<Record<string, string>>;
  /** Jobs at once, which then are of one base model and may share its passes. */
  readonly slots: number;
  /** The whole of a graceful stop: checkpoint, upload, last words. */
  readonly stopMs: number;
  /** An engine that has a job and says nothing for so long is given up. */
  readonly engineSilenceMs: number;
  /** Absolute; this worker's own, shared with no other. */
  readonly workerDir: string;
  /** Absolute; model weights, may be shared by the workers of a machine. */
  readonly cacheDir: string;
  /** Bound of the artifact cache in `workerDir`. */
  readonly artifactCacheBytes: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent';
}

/** @throws invalid_input naming every variable at fault; values are left out, some of them are secrets. */
export function parseWorkerConfig(environment: Readonly<Record<string, string | undefined>>): WorkerConfig {
  const parsed = environmentSchema.safeParse(environment);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => {
      const name = String(issue.path[0] ?? 'environment');
      return environment[name] === undefined ? `${name} is not set` : `${name}: ${issue.message}`;
    });
    throw new TunefleetError('invalid_input', `the environment is not complete: ${problems.join('; ')}`, { reason: 'invalid_configuration' });
  }
  const env = parsed.data;
  const dataDir = resolve(env.TUNEFLEET_DATA_DIR);
  const name = env.TUNEFLEET_WORKER_NAME ?? hostname().replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 64);
  return {
    controlPlane: env.TUNEFLEET_CONTROL_PLANE.replace(/^grpcs?:\/\//, ''),
    tls: env.TUNEFLEET_CONTROL_PLANE.startsWith('grpcs://')
      ? {
          ca: env.TUNEFLEET_TLS_CA ?? null,
          own: env.TUNEFLEET_TLS_CERT === undefined || env.TUNEFLEET_TLS_KEY === undefined ? null : { cert: env.TUNEFLEET_TLS_CERT, key: env.TUNEFLEET_TLS_KEY },
          serverName: env.TUNEFLEET_TLS_SERVER_NAME ?? null,
        }
      : null,
    joinToken: env.TUNEFLEET_WORKER_TOKEN ?? null,
    name,
    labels: env.TUNEFLEET_WORKER_LABELS,
    slots: env.TUNEFLEET_WORKER_SLOTS,
    stopMs: env.TUNEFLEET_WORKER_STOP_SECONDS * 1_000,
    engineSilenceMs: env.TUNEFLEET_ENGINE_SILENCE_SECONDS * 1_000,
    workerDir: join(dataDir, 'workers', name),
    cacheDir: env.TUNEFLEET_CACHE_DIR === undefined ? join(dataDir, 'cache') : resolve(env.TUNEFLEET_CACHE_DIR),
    artifactCacheBytes: env.TUNEFLEET_ARTIFACT_CACHE_BYTES,
    logLevel: env.TUNEFLEET_LOG_LEVEL,
  };
}

const LABELS_MAX = 32;
const LABEL = /^([A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}))=([A-Za-z0-9._/-]{0,63})$/;

/** "zone=a,gpu=t4". @returns what is wrong with it, as text, when it is not that */
export function parseLabels(text: string): Readonly<Record<string, string>> | string {
  const pairs = text.split(',').map((pair) => pair.trim()).filter((pair) => pair !== '');
  if (pairs.length > LABELS_MAX) return `${pairs.length} labels are too many: at most ${LABELS_MAX}`;
  const labels: Record<string, string> = {};
  for (const pair of pairs) {
    const [, name, value] = LABEL.exec(pair) ?? [];
    if (name === undefined || value === undefined) return `"${pair}" is no label: name=value is needed, each of at most 63 letters, digits, dots, slashes, hyphens and underscores`;
    if (Object.hasOwn(labels, name)) return `the label ${name} is given twice`;
    labels[name] = value;
  }
  return labels;
}
