import { formatBytes, formatCount } from '../../render/text';
import type { DoctorFacts, EngineProbe, FolderFact } from './facts';

export type FindingStatus = 'ok' | 'warning' | 'problem';

export interface Finding {
  readonly name: string;
  readonly status: FindingStatus;
  readonly found: string;
  /** What to do; only where something should be done. */
  readonly advice?: string;
}

const NODE_OLDEST = [20, 19] as const;
const GIBIBYTE = 1024 ** 3;
/** The quickstart's model with its training state. */
const MEMORY_BYTES_WANTED = 2 * GIBIBYTE;
/** libtensorflow, its wheel while it is unpacked, and one small model. */
const DISK_BYTES_WANTED = 3 * GIBIBYTE;
const DISK_BYTES_LEAST = GIBIBYTE / 4;
const RUN_SETUP = 'run "npm run setup"; it says what stands in the way';

/** What the facts mean. A `problem` keeps jobs from running; a `warning` makes them slow or is likely to become one. */
export function findingsOf(facts: DoctorFacts): Finding[] {
  return [
    node(facts),
    { name: 'machine', status: 'ok', found: `${facts.platform}, ${facts.cores} × ${facts.processor}` },
    memory(facts),
    ...engine(facts),
    tool('compiler', facts, facts.compiler, 'install a C++ compiler (Debian, Ubuntu: apt-get install g++), then run "npm run setup"'),
    tool('python', facts, facts.python, 'install Python 3.8 or newer (Debian, Ubuntu: apt-get install python3 python3-pip), then run "npm run setup"'),
    tool('pip', facts, facts.pip, 'install pip (Debian, Ubuntu: apt-get install python3-pip), then run "npm run setup"'),
    database(facts),
    redis(facts),
    folder('cache folder', facts.cacheDir, 'TUNEFLEET_CACHE_DIR'),
    folder('data folder', facts.dataDir, 'TUNEFLEET_DATA_DIR'),
    ...models(facts),
  ];
}

export function hasProblem(findings: readonly Finding[]): boolean {
  return findings.some((finding) => finding.status === 'problem');
}

function node({ nodeVersion }: DoctorFacts): Finding {
  const [major = 0, minor = 0] = nodeVersion.split('.').map(Number);
  const [oldestMajor, oldestMinor] = NODE_OLDEST;
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return { name: 'node', status: 'ok', found: nodeVersion };
  return { name: 'node', status: 'problem', found: nodeVersion, advice: `use Node.js ${NODE_OLDEST.join('.')} or newer` };
}

function memory({ memoryBytesFree, memoryBytesTotal }: DoctorFacts): Finding {
  const found = `${formatBytes(memoryBytesFree)} free of ${formatBytes(memoryBytesTotal)}`;
  if (memoryBytesFree >= MEMORY_BYTES_WANTED) return { name: 'memory', status: 'ok', found };
  return { name: 'memory', status: 'warning', found, advice: `tuning a 135M model takes about ${formatBytes(MEMORY_BYTES_WANTED)}: close other programs, or expect the job to be refused` };
}

function engine(facts: DoctorFacts): Finding[] {
  switch (facts.engine.kind) {
    case 'missing':
      return [{ name: 'engine', status: 'problem', found: `${facts.engine.file} is missing`, advice: RUN_SETUP }];
    case 'failed':
      return [{ name: 'engine', status: 'problem', found: facts.engine.reason, advice: RUN_SETUP }];
    case 'answered':
      return [backend(facts, facts.engine.probe), speed(facts.engine.probe)];
  }
}

function backend(facts: DoctorFacts, probe: EngineProbe): Finding {
  const found = `${probe.backend === 'tensorflow' ? 'TensorFlow' : 'WebAssembly'} ${probe.backendVersion} on ${probe.gpu ? 'GPU' : 'CPU'} ${probe.deviceName}, ${probe.threads} threads`;
  if (probe.backend === 'wasm') {
    const why = probe.fallback === null ? '' : ` (${probe.fallback})`;
    return { name: 'engine', status: 'warning', found: `${found}${why}`, advice: `training is several times slower than on TensorFlow: ${nativeAdvice(facts)}` };
  }
  if (facts.nvidiaCard && !probe.gpu) {
    return { name: 'engine', status: 'problem', found, advice: 'the machine has an NVIDIA card that is not used: check "nvidia-smi" and CUDA_VISIBLE_DEVICES, and run "npm run setup" with TUNEFLEET_NATIVE=cuda' };
  }
  return { name: 'engine', status: 'ok', found };
}

function nativeAdvice({ compiler, python, pip }: DoctorFacts): string {
  const lacking = Object.entries({ 'a C++ compiler': compiler, 'Python 3': python, pip }).flatMap(([name, outcome]) => (outcome.ok ? [] : [name]));
  return lacking.length > 0 ? `install ${lacking.join(' and ')}, then run "npm run setup"` : RUN_SETUP;
}

function speed(probe: EngineProbe): Finding {
  const bf16 = probe.gflopsBf16 === null ? 'no bf16' : `bf16 ${formatCount(probe.gflopsBf16)}`;
  return { name: 'arithmetic', status: 'ok', found: `f32 ${formatCount(probe.gflopsF32)} GFLOP/s, ${bf16}; compute_dtype auto means ${probe.recommended}` };
}

/** What set-up needs is only missed while TensorFlow is not there. */
function tool(name: 'compiler' | 'python' | 'pip', { engine: found }: DoctorFacts, outcome: DoctorFacts['compiler'], advice: string): Finding {
  if (outcome.ok) return { name, status: 'ok', found: outcome.found };
  const needed = !(found.kind === 'answered' && found.probe.backend === 'tensorflow');
  return needed ? { name, status: 'warning', found: outcome.reason, advice } : { name, status: 'ok', found: `${outcome.reason}; not needed any more` };
}

function database({ database: fact }: DoctorFacts): Finding {
  const where = fact.source === 'embedded' ? 'embedded' : 'DATABASE_URL';
  if (fact.ok) return { name: 'postgres', status: 'ok', found: `${where}: ${fact.found}` };
  const advice = fact.source === 'embedded' ? 'run "npm run setup", or set DATABASE_URL to a PostgreSQL server (14 or newer)' : 'start that server, correct DATABASE_URL, or unset it to use the embedded one';
  return { name: 'postgres', status: 'problem', found: `${where}: ${fact.reason}`, advice };
}

function redis({ redis: fact }: DoctorFacts): Finding {
  if (fact === null) return { name: 'redis', status: 'ok', found: 'REDIS_URL is not set: queues are kept in PostgreSQL' };
  if (fact.ok) return { name: 'redis', status: 'ok', found: fact.found };
  return { name: 'redis', status: 'problem', found: fact.reason, advice: 'start that server, correct REDIS_URL, or unset it to keep queues in PostgreSQL' };
}

function folder(name: string, { path, writable, bytesFree }: FolderFact, variable: string): Finding {
  const found = `${path}, ${formatBytes(bytesFree)} free`;
  if (!writable) return { name, status: 'problem', found: `${path} cannot be written`, advice: `make it writable, or set ${variable} to another folder` };
  if (bytesFree < DISK_BYTES_LEAST) return { name, status: 'problem', found, advice: `free some space, or set ${variable} to a folder on another disk` };
  if (bytesFree < DISK_BYTES_WANTED) return { name, status: 'warning', found, advice: `libraries and one small model take about ${formatBytes(DISK_BYTES_WANTED)}: free some space, or set ${variable} to a folder on another disk` };
  return { name, status: 'ok', found };
}

function models({ modelSources, modelsOnDisk }: DoctorFacts): Finding[] {
  const reachable = modelSources.some((source) => source.ok);
  const sources = modelSources.map((source): Finding => {
    const name = `models: ${source.name}`;
    if (source.ok) return { name, status: 'ok', found: source.found };
    return { name, status: 'warning', found: source.reason, advice: source.name === 'hub' ? 'check the connection, or set HF_ENDPOINT to a mirror of the hub' : 'check the connection and pip\'s index settings' };
  });
  const onDisk: Finding =
    modelsOnDisk.length > 0
      ? { name: 'models: on disk', status: 'ok', found: modelsOnDisk.join(', ') }
      : reachable
        ? { name: 'models: on disk', status: 'ok', found: 'none yet; fetched when first used' }
        : { name: 'models: on disk', status: 'problem', found: 'none, and no source can be reached', advice: 'make a source reachable, or put model folders on this machine and name them in TUNEFLEET_LOCAL_MODELS' };
  return [...sources, onDisk];
}
