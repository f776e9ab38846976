import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { access, constants, mkdir, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import { cpus, freemem, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { cacheDirectory, ModelResolver, modelResolverOptions, mirrorCatalogue } from '@tunefleet/ml-models/specs';
import { postgresVersion } from '@tunefleet/postgres-embedded';
import { engineFile } from '../../connection/engine-command';
import { dataDirOf } from '../../connection/find-connection';
import { engineProbeSchema, type DoctorFacts, type EngineFact, type FolderFact, type Outcome } from './facts';

const ANSWER_MS = 5_000;
/** Python takes its time on a loaded machine. */
const TOOL_MS = 20_000;
const PACKAGE_INDEX_MS = 20_000;
/** A first start reads half a gigabyte of libraries from disk. */
const PROBE_MS = 120_000;

/** Looks at this machine as the service would find it with this environment. Changes nothing but makes the two folders. */
export async function gatherFacts(environment: NodeJS.ProcessEnv): Promise<DoctorFacts> {
  const { DATABASE_URL: databaseUrl, REDIS_URL: redisUrl, CXX: compiler } = environment;
  const python = await firstAnswering(environment['PYTHON'] ? [environment['PYTHON']] : ['python3', 'python'], ['--version']);
  const [engine, foundCompiler, pip, database, redis, cacheDir, dataDir, models] = await Promise.all([
    probeEngine(environment),
    firstAnswering(compiler ? [compiler] : ['c++', 'g++', 'clang++'], ['--version']),
    firstAnswering(environment['PYTHON'] ? [environment['PYTHON']] : ['python3', 'python'], ['-m', 'pip', '--version']),
    databaseUrl ? atAddress('DATABASE_URL', databaseUrl, 5432) : outcomeOf(postgresVersion()),
    redisUrl ? atAddress('REDIS_URL', redisUrl, 6379) : null,
    folderFact(cacheDirectory(environment)),
    folderFact(dataDirOf({}, environment, process.cwd())),
    modelFacts(environment),
  ]);
  return {
    nodeVersion: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    processor: cpus()[0]?.model.trim() ?? 'unknown processor',
    cores: cpus().length,
    memoryBytesTotal: totalmem(),
    memoryBytesFree: freemem(),
    nvidiaCard: hasNvidiaCard(),
    engine,
    compiler: foundCompiler,
    python,
    pip,
    database: { source: databaseUrl ? 'DATABASE_URL' : 'embedded', ...database },
    redis,
    cacheDir,
    dataDir,
    ...models,
  };
}

async function probeEngine(environment: NodeJS.ProcessEnv): Promise<EngineFact> {
  const file = engineFile(environment);
  if (!existsSync(file)) return { kind: 'missing', file };
  try {
    const line = (await run(process.execPath, [file, 'probe', '--json'], PROBE_MS)).trim().split('\n').at(-1) ?? '';
    return { kind: 'answered', probe: engineProbeSchema.parse(JSON.parse(line)) };
  } catch (error) {
    return { kind: 'failed', reason: errorMessage(error) };
  }
}

function hasNvidiaCard(): boolean {
  try {
    return readdirSync('/dev').some((name) => /^nvidia\d+$/.test(name)) || existsSync('/usr/lib/wsl/lib/libcuda.so.1');
  } catch {
    return false;
  }
}

async function modelFacts(environment: NodeJS.ProcessEnv): Promise<Pick<DoctorFacts, 'modelSources' | 'modelsOnDisk'>> {
  const options = modelResolverOptions(environment);
  const sources = await Promise.all(
    options.order.map(async (name) => ({ name, ...(name === 'hub' ? await hubAnswers(options.hubEndpoint) : await packageIndexAnswers(options.mirror.python)) })),
  );
  const local = (options.localRoots === 'any' ? [] : options.localRoots).map((path) => ({ name: path, ...(existsSync(path) ? { ok: true as const, found: 'folder of TUNEFLEET_LOCAL_MODELS' } : { ok: false as const, reason: 'named in TUNEFLEET_LOCAL_MODELS, but does not exist' }) }));
  return { modelSources: [...sources, ...local], modelsOnDisk: await new ModelResolver(options).cached() };
}

async function hubAnswers(endpoint: string): Promise<Outcome> {
  try {
    const { status } = await fetch(`${endpoint}/api/models?limit=1`, { signal: AbortSignal.timeout(ANSWER_MS) });
    return status < 500 ? { ok: true, found: `${endpoint} answers` } : { ok: false, reason: `${endpoint} answers with status ${status}` };
  } catch (error) {
    return { ok: false, reason: `${endpoint} does not answer (${error instanceof Error && error.cause instanceof Error ? error.cause.message : errorMessage(error)})` };
  }
}

/** pip knows the site's index; asking for the newest version of one package tells whether it can be reached. */
async function packageIndexAnswers(python: string): Promise<Outcome> {
  const entry = mirrorCatalogue[0];
  if (entry === undefined) return { ok: false, reason: 'no model is known to be carried by a package' };
  try {
    await run(python, ['-m', 'pip', 'index', 'versions', entry.package, '--disable-pip-version-check'], PACKAGE_INDEX_MS);
    return { ok: true, found: `pip finds ${entry.package}, which carries ${entry.id}` };
  } catch {
    return { ok: false, reason: `pip does not find ${entry.package}` };
  }
}

/** Only whether something listens: the address holds a password, and what it opens is the control plane's business. */
function atAddress(variable: string, address: string, usualPort: number): Promise<Outcome> {
  return new Promise((resolve) => {
    let url: URL;
    try {
      url = new URL(address);
    } catch {
      return resolve({ ok: false, reason: `${variable} is not an address` });
    }
    const place = { host: url.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1', port: Number(url.port) || usualPort };
    const socket = connect({ ...place, timeout: ANSWER_MS });
    const finish = (outcome: Outcome): void => {
      socket.destroy();
      resolve(outcome);
    };
    const name = `${place.host}:${place.port}`;
    socket.once('connect', () => finish({ ok: true, found: `${name} answers` }));
    socket.once('error', (error) => finish({ ok: false, reason: `${name} does not answer (${errorMessage(error)})` }));
    socket.once('timeout', () => finish({ ok: false, reason: `${name} does not answer within ${ANSWER_MS / 1000} s` }));
  });
}

async function folderFact(path: string): Promise<FolderFact> {
  try {
    await mkdir(path, { recursive: true });
    await access(path, constants.W_OK);
  } catch {
    return { path, writable: false, bytesFree: 0 };
  }
  const { bavail, bsize } = await statfs(existsSync(path) ? path : dirname(path));
  return { path, writable: true, bytesFree: bavail * bsize };
}

async function firstAnswering(commands: readonly string[], args: readonly string[]): Promise<Outcome> {
  for (const command of commands) {
    try {
      const [line = ''] = (await run(command, args, TOOL_MS)).trim().split('\n');
      return { ok: true, found: `${command}: ${line}` };
    } catch {
      // The next one may answer.
    }
  }
  return { ok: false, reason: `none of ${commands.join(', ')} answers` };
}

async function outcomeOf(promise: Promise<string>): Promise<Outcome> {
  try {
    return { ok: true, found: await promise };
  } catch (error) {
    return { ok: false, reason: errorMessage(error) };
  }
}

/** @throws unavailable with the last line the program wrote */
function run(command: string, args: readonly string[], timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, [...args], { timeout: timeoutMs, encoding: 'utf8' }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const last = stderr.trim().split('\n').at(-1);
      reject(new TunefleetError('unavailable', last || (error.killed ? `no answer within ${timeoutMs / 1000} s` : error.message), { cause: error }));
    });
  });
}
