import { resolve } from 'node:path';
import { defaultCordonRule } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import { modelResolverOptions, type ModelResolverOptions } from '@tunefleet/ml-models/specs';
import { z } from 'zod';

const MEBIBYTE = 1024 * 1024;

/** An empty variable means the same as an absent one, as shells and Compose files leave them behind. */
const optionalText = z.preprocess((value) => (value === '' ? undefined : value), z.string().trim().min(1).optional());
const port = z.coerce.number().int().min(0).max(65535);

const environmentSchema = z.object({
  DATABASE_URL: z.string().regex(/^postgres(ql)?:\/\//, 'a postgres:// URL'),
  REDIS_URL: optionalText.pipe(z.string().regex(/^rediss?:\/\//, 'a redis:// URL').optional()),
  TUNEFLEET_DATA_DIR: z.string().min(1).default('.tunefleet'),
  TUNEFLEET_HOST: z.string().min(1).default('127.0.0.1'),
  TUNEFLEET_HTTP_PORT: port.default(8080),
  TUNEFLEET_GRPC_PORT: port.default(8081),
  TUNEFLEET_API_KEY: z.string().min(8, 'at least 8 characters').max(200),
  TUNEFLEET_WORKER_TOKEN: z.string().min(8, 'at least 8 characters').max(200),
  TUNEFLEET_TEAM: z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'lower-case letters, digits and hyphens').default('default'),
  TUNEFLEET_MAX_FILE_BYTES: z.coerce.number().int().min(1).default(512 * MEBIBYTE),
  TUNEFLEET_CORDON_FAILURES: z.coerce.number().int().min(0).max(1_000).default(defaultCordonRule.failures),
  TUNEFLEET_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
});

export interface ControlPlaneConfig {
  readonly databaseUrl: string;
  /** Undefined: queues live in Postgres. */
  readonly redisUrl: string | undefined;
  /** Absolute. The blob store is `<dataDir>/blobs`. */
  readonly dataDir: string;
  readonly host: string;
  /** 0: any free port. */
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly apiKey: string;
  readonly workerToken: string;
  /** The team the API key belongs to; also the organisation in model names. */
  readonly team: string;
  readonly maxFileBytes: number;
  /** Infrastructure failures within an hour, of two jobs at least, that cordon a worker; 0: none do. */
  readonly cordonFailures: number;
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
    workerToken: env.TUNEFLEET_WORKER_TOKEN,
    team: env.TUNEFLEET_TEAM,
    maxFileBytes: env.TUNEFLEET_MAX_FILE_BYTES,
    cordonFailures: env.TUNEFLEET_CORDON_FAILURES,
    logLevel: env.TUNEFLEET_LOG_LEVEL,
    models: modelResolverOptions(environment),
  };
}
