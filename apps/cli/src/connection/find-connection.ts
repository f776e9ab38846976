import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { TunefleetError, errorCode } from '@tunefleet/foundation';
import { z } from 'zod';

/** How the server was found; said when it does not answer. */
export type ConnectionSource = 'flag' | 'environment' | 'local';

export interface Connection {
  readonly url: string;
  readonly apiKey: string;
  readonly source: ConnectionSource;
}

export interface ConnectionQuestion {
  readonly flags: { readonly url?: string; readonly key?: string; readonly dataDir?: string };
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly workingDir: string;
}

/** What the local service leaves in its data folder while it runs (docs/develop/processes.md). */
const serverFileSchema = z.object({ url: z.url(), grpcAddress: z.string().min(1).optional() });
const secretsFileSchema = z.object({ apiKey: z.string().min(1), workerToken: z.string().min(1).optional() });

/**
 * The server to talk to: flags first, then TUNEFLEET_URL and TUNEFLEET_API_KEY, then the service running from the data folder.
 * A key is never taken from the local service for a server named otherwise: it would be sent to a stranger.
 * @throws unavailable when no server is named and none runs here; unauthenticated when a server is named without a key
 */
export async function findConnection({ flags, environment, workingDir }: ConnectionQuestion): Promise<Connection> {
  const url = flags.url ?? nonEmpty(environment['TUNEFLEET_URL']);
  const key = flags.key ?? nonEmpty(environment['TUNEFLEET_API_KEY']);
  if (url !== undefined) {
    if (!/^https?:\/\//.test(url)) throw new TunefleetError('invalid_input', `"${url}" is not an http:// or https:// address`);
    if (key === undefined) throw new TunefleetError('unauthenticated', `there is no API key for ${url}: pass --key or set TUNEFLEET_API_KEY`);
    return { url, apiKey: key, source: flags.url === undefined ? 'environment' : 'flag' };
  }
  const dataDir = dataDirOf(flags, environment, workingDir);
  const server = await readJson(join(dataDir, 'server.json'), serverFileSchema);
  if (server === null) throw new TunefleetError('unavailable', `no service runs from ${dataDir}: ${HOW_TO_START}`);
  const secrets = key === undefined ? await readJson(join(dataDir, 'secrets.json'), secretsFileSchema) : { apiKey: key };
  if (secrets === null) throw new TunefleetError('unauthenticated', `there is no API key in ${dataDir}: pass --key or set TUNEFLEET_API_KEY`);
  return { url: server.url, apiKey: secrets.apiKey, source: 'local' };
}

export interface FleetAddress {
  /** As TUNEFLEET_CONTROL_PLANE wants it. */
  readonly controlPlane: string;
  /** Undefined: the worker has joined before, or says itself what is missing. */
  readonly workerToken: string | undefined;
}

/**
 * Where a worker dials: the named control plane with the token of the environment, or the service running from the data folder with its own.
 * @throws unavailable when none is named and none runs here
 */
export async function findFleet({ flags, environment, workingDir }: Omit<ConnectionQuestion, 'flags'> & { readonly flags: { readonly controlPlane?: string; readonly dataDir?: string } }): Promise<FleetAddress> {
  const named = flags.controlPlane ?? nonEmpty(environment['TUNEFLEET_CONTROL_PLANE']);
  const token = nonEmpty(environment['TUNEFLEET_WORKER_TOKEN']);
  if (named !== undefined) {
    return { controlPlane: named, workerToken: token };
  }
  const dataDir = dataDirOf(flags, environment, workingDir);
  const server = await readJson(join(dataDir, 'server.json'), serverFileSchema);
  const secrets = await readJson(join(dataDir, 'secrets.json'), secretsFileSchema);
  const workerToken = token ?? secrets?.workerToken;
  if (server?.grpcAddress === undefined || workerToken === undefined) {
    throw new TunefleetError('unavailable', `no service runs from ${dataDir}: name its control plane with --control-plane and set TUNEFLEET_WORKER_TOKEN, or start one here with "npm start"`);
  }
  return { controlPlane: server.grpcAddress, workerToken };
}

export function dataDirOf(flags: { readonly dataDir?: string }, environment: ConnectionQuestion['environment'], workingDir: string): string {
  return resolve(workingDir, flags.dataDir ?? nonEmpty(environment['TUNEFLEET_DATA_DIR']) ?? '.tunefleet');
}

/** Says how to start or reach the server when the error is that it does not answer; any other error as it is. */
export function explainUnreachable(error: unknown, connection: Connection): unknown {
  if (errorCode(error) !== 'unavailable') return error;
  const help = connection.source === 'local' ? `it may have stopped; ${HOW_TO_START}` : `check ${connection.source === 'flag' ? '--url' : 'TUNEFLEET_URL'}`;
  return new TunefleetError('unavailable', `no answer from ${connection.url} (${(error as Error).message}): ${help}`, { cause: error });
}

const HOW_TO_START = 'start it with "npm start", or name another server with --url and --key';

async function readJson<T extends z.ZodType>(file: string, schema: T): Promise<z.infer<T> | null> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch {
    return null;
  }
  const parsed = schema.safeParse(safeJson(text));
  if (!parsed.success) throw new TunefleetError('invalid_input', `${file} cannot be read: stop the service, remove the file and start again`);
  return parsed.data;
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text;
}
