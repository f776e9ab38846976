import { resolve } from 'node:path';
import { defaultCordonRule, parseRetention, type RetentionRule } from '@tunefleet/domain-jobs';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { modelResolverOptions, type ModelResolverOptions } from '@tunefleet/ml-models/specs';
import { z } from 'zod';
import { defaultFleetSettings } from '../fleet/settings';

const MEBIBYTE = 1024 * 1024;
/** Of what is the service's own only. */
const RETENTION_DEFAULT = 'outbox=1h';

/** An empty variable means the same as an absent one, as shells and Compose files leave them behind. */
const optionalText = z.preprocess((value) => (value === '' ? undefined : value), z.string().trim().min(1).optional());
const port = z.coerce.number().int().min(0).max(65535);

const onOrOff = (byDefault: 'on' | 'off') => z.preprocess((value) => (value === '' || value === undefined ? byDefault : value), z.enum(['on', 'off'])).transform((value) => value === 'on');

const environmentSchema = z.object({
  DATABASE_URL: z.string().regex(/^postgres(ql)?:\/\//, 'a postgres:// URL'),
  REDIS_URL: optionalText.pipe(z.string().regex(/^rediss?:\/\//, 'a redis:// URL').optional()),
  TUNEFLEET_DATA_DIR: z.string().min(1).default('.tunefleet'),
  TUNEFLEET_HOST: z.string().min(1).default('127.0.0.1'),
  TUNEFLEET_HTTP_PORT: port.default(8080),
  TUNEFLEET_GRPC_PORT: port.default(8081),
  TUNEFLEET_API_KEY: z.string().min(8, 'at least 8 characters').max(200),
  TUNEFLEET_WORKER_TOKEN: optionalText.pipe(z.string().min(8, 'at least 8 characters').max(200).optional()),
  TUNEFLEET_SHARED_TOKEN: onOrOff('on'),
  TUNEFLEET_GRPC_HOST: optionalText,
  TUNEFLEET_GRPC_PLAINTEXT: onOrOff('off'),
  TUNEFLEET_GRPC_TLS_CERT: optionalText,
  TUNEFLEET_GRPC_TLS_KEY: optionalText,
  TUNEFLEET_GRPC_TLS_CLIENT_CA: optionalText,
  TUNEFLEET_TEAM: z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'lower-case letters, digits and hyphens').default('default'),
  TUNEFLEET_MAX_FILE_BYTES: z.coerce.number().int().min(1).default(512 * MEBIBYTE),
  TUNEFLEET_WORKER_UPLOAD_BYTES: z.coerce.number().int().min(MEBIBYTE).default(defaultFleetSettings.maxUnpublishedBytes),
  TUNEFLEET_LEASE_SECONDS: z.coerce.number().min(6).max(3_600).default(defaultFleetSettings.leaseMs / 1_000),
  TUNEFLEET_CORDON_FAILURES: z.coerce.number().int().min(0).max(1_000).default(defaultCordonRule.failures),
  TUNEFLEET_RETENTION: optionalText.transform((text, context): readonly RetentionRule[] => {
    try {
      return text === 'off' ? [] : parseRetention(text ?? RETENTION_DEFAULT);
    } catch (error) {
      context.addIssue({ code: 'custom', message: errorMessage(error) });
      return [];
    }
  }),
  TUNEFLEET_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
}).superRefine((env, context) => {
  const problem = (name: string, message: string): void => context.addIssue({ code: 'custom', path: [name], message });
  if (env.TUNEFLEET_SHARED_TOKEN && env.TUNEFLEET_WORKER_TOKEN === undefined) problem('TUNEFLEET_WORKER_TOKEN', 'needed unless TUNEFLEET_SHARED_TOKEN is off');
  if ((env.TUNEFLEET_GRPC_TLS_CERT === undefined) !== (env.TUNEFLEET_GRPC_TLS_KEY === undefined)) problem('TUNEFLEET_GRPC_TLS_CERT', 'needs TUNEFLEET_GRPC_TLS_KEY, and the other way round');
  if (env.TUNEFLEET_GRPC_TLS_CLIENT_CA !== undefined && env.TUNEFLEET_GRPC_TLS_CERT === undefined) problem('TUNEFLEET_GRPC_TLS_CLIENT_CA', 'needs TUNEFLEET_GRPC_TLS_CERT and TUNEFLEET_GRPC_TLS_KEY');
});

/** Paths of PEM files. */
export interface GrpcTlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Null: workers need no certificate. */
  readonly clientCa: string | null;
}

export interface ControlPlaneConfig {
  readonly databaseUrl: string;
  /** Undefined: queues live in Postgres. */
  readonly redisUrl: string | undefined;
  /** Absolute. The blob store is `<dataDir>/blobs`. */
  readonly dataDir: string;
  readonly host: string;
  /** What workers dial; `host` is for HTTP. */
  readonly grpcHost: string;
  /** Null: plain text. */
  readonly grpcTls: GrpcTlsFiles | null;
  /** Plain text also beyond this machine. */
  readonly grpcPlaintext: boolean;
  /** 0: any free port. */
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly apiKey: string;
  /** Lets any number of workers join; null: only join tokens do. */
  readonly sharedToken: string | null;
  /** The team the API key belongs to; also the organisation in model names. */
  readonly team: string;
  readonly maxFileBytes: number;
  /** Of a worker's uploads that no checkpoint or result names. */
  readonly workerUploadBytes: number;
  /** How long a worker may go on without contact; beats, silence and repairs follow from it. */
  readonly leaseMs: number;
  /** Infrastructure failures within an hour, of two jobs at least, that cordon a worker; 0: none do. */
  readonly cordonFailures: number;
  /** What is removed once a day. */
  readonly retention: readonly RetentionRule[];
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Where intake looks base models up. */
  readonly models: ModelResolverOptions;
}

/** @throws invalid_input naming every variable at fault; values are left out, some of them are secrets. */
export function parseConfig(environment: Readonly<Record<string, string | undefined>>): ControlPlaneConfig {
  const parsed = environmentSchema.safeParse(environment);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => {
      const name = String(issue.path[0] ?? 'environment');
      return environment[name] === undefined ? `${name} is not set` : `${name}: ${issue.message}`;
    });
    throw new TunefleetError('invalid_input', `the environment is not complete: ${problems.join('; ')}`, { reason: 'invalid_configuration' });
  }
  const env = parsed.data;
  return {
    databaseUrl: env.DATABASE_URL,
    redisUrl: env.REDIS_URL,
    dataDir: resolve(env.TUNEFLEET_DATA_DIR),
    host: env.TUNEFLEET_HOST,
    httpPort: env.TUNEFLEET_HTTP_PORT,
    grpcPort: env.TUNEFLEET_GRPC_PORT,
    apiKey: env.TUNEFLEET_API_KEY,
    sharedToken: env.TUNEFLEET_SHARED_TOKEN ? (env.TUNEFLEET_WORKER_TOKEN ?? null) : null,
    grpcHost: env.TUNEFLEET_GRPC_HOST ?? env.TUNEFLEET_HOST,
    grpcTls:
      env.TUNEFLEET_GRPC_TLS_CERT === undefined || env.TUNEFLEET_GRPC_TLS_KEY === undefined
        ? null
        : { cert: env.TUNEFLEET_GRPC_TLS_CERT, key: env.TUNEFLEET_GRPC_TLS_KEY, clientCa: env.TUNEFLEET_GRPC_TLS_CLIENT_CA ?? null },
    grpcPlaintext: env.TUNEFLEET_GRPC_PLAINTEXT,
    team: env.TUNEFLEET_TEAM,
    maxFileBytes: env.TUNEFLEET_MAX_FILE_BYTES,
    workerUploadBytes: env.TUNEFLEET_WORKER_UPLOAD_BYTES,
    leaseMs: Math.round(env.TUNEFLEET_LEASE_SECONDS * 1_000),
    cordonFailures: env.TUNEFLEET_CORDON_FAILURES,
    retention: env.TUNEFLEET_RETENTION,
    logLevel: env.TUNEFLEET_LOG_LEVEL,
    models: modelResolverOptions(environment),
  };
}
