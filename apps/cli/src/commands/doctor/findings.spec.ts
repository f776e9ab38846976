import type { DoctorFacts, EngineProbe } from './facts';
import { findingsOf, hasProblem, type Finding } from './findings';

const GIBIBYTE = 1024 ** 3;

const probe: EngineProbe = {
  backend: 'tensorflow',
  backendVersion: '2.21.0',
  deviceName: 'EPYC',
  gpu: false,
  bf16: true,
  threads: 2,
  memoryBytesTotal: 8 * GIBIBYTE,
  memoryBytesFree: 4 * GIBIBYTE,
  gflopsF32: 95.4,
  gflopsBf16: 90,
  recommended: 'f32',
  fallback: null,
};

const healthy: DoctorFacts = {
  nodeVersion: '20.19.0',
  platform: 'linux-x64',
  processor: 'EPYC',
  cores: 2,
  memoryBytesTotal: 8 * GIBIBYTE,
  memoryBytesFree: 4 * GIBIBYTE,
  nvidiaCard: false,
  engine: { kind: 'answered', probe },
  compiler: { ok: true, found: 'g++ 12' },
  python: { ok: true, found: 'Python 3.11' },
  pip: { ok: true, found: 'pip 23' },
  database: { source: 'embedded', ok: true, found: 'PostgreSQL 18' },
  redis: null,
  cacheDir: { path: '/cache', writable: true, bytesFree: 50 * GIBIBYTE },
  dataDir: { path: '/data', writable: true, bytesFree: 50 * GIBIBYTE },
  modelSources: [{ name: 'hub', ok: true, found: 'answers' }],
  modelsOnDisk: [],
};

const finding = (facts: DoctorFacts, name: string): Finding | undefined => findingsOf(facts).find((each) => each.name === name);
const no = { ok: false, reason: 'none' } as const;

test('a healthy machine has nothing to do', () => {
  const findings = findingsOf(healthy);
  expect(findings.filter((each) => each.status !== 'ok' || each.advice !== undefined)).toEqual([]);
  expect(hasProblem(findings)).toBe(false);
  expect(finding(healthy, 'engine')?.found).toBe('TensorFlow 2.21.0 on CPU EPYC, 2 threads');
  expect(finding(healthy, 'arithmetic')?.found).toBe('f32 95 GFLOP/s, bf16 90; compute_dtype auto means f32');
});

test.each<[string, Partial<DoctorFacts>, string, RegExp]>([
  ['an old Node', { nodeVersion: '20.18.3' }, 'node', /20\.19 or newer/],
  ['an engine that is not built', { engine: { kind: 'missing', file: '/dist/engine.mjs' } }, 'engine', /npm run setup/],
  ['an engine that fails', { engine: { kind: 'failed', reason: 'undefined symbol' } }, 'engine', /npm run setup/],
  ['a card that is not used', { nvidiaCard: true }, 'engine', /nvidia-smi/],
  ['a dead database', { database: { source: 'DATABASE_URL', ...no } }, 'postgres', /unset it to use the embedded one/],
  ['no embedded database', { database: { source: 'embedded', ...no } }, 'postgres', /set DATABASE_URL/],
  ['a dead Redis', { redis: no }, 'redis', /unset it to keep queues in PostgreSQL/],
  ['a folder that cannot be written', { dataDir: { path: '/data', writable: false, bytesFree: 0 } }, 'data folder', /TUNEFLEET_DATA_DIR/],
  ['a full disk', { cacheDir: { path: '/cache', writable: true, bytesFree: 1000 } }, 'cache folder', /TUNEFLEET_CACHE_DIR/],
  ['no way to a model', { modelSources: [{ name: 'hub', ...no }] }, 'models: on disk', /TUNEFLEET_LOCAL_MODELS/],
])('%s is a problem, with advice', (_, change, name, advice) => {
  const facts = { ...healthy, ...change };
  expect(finding(facts, name)).toMatchObject({ status: 'problem', advice: expect.stringMatching(advice) as unknown });
  expect(hasProblem(findingsOf(facts))).toBe(true);
});

test('Node 22.0 is newer than 20.19', () => {
  expect(finding({ ...healthy, nodeVersion: '22.0.0' }, 'node')?.status).toBe('ok');
});

test('WebAssembly is a warning that names what set-up lacks', () => {
  const facts: DoctorFacts = { ...healthy, engine: { kind: 'answered', probe: { ...probe, backend: 'wasm', fallback: 'no addon' } }, compiler: no };
  expect(finding(facts, 'engine')).toMatchObject({ status: 'warning', advice: expect.stringContaining('install a C++ compiler, then run "npm run setup"') as unknown });
  expect(finding(facts, 'compiler')?.status).toBe('warning');
  expect(hasProblem(findingsOf(facts))).toBe(false);
});

test('a compiler is not missed once TensorFlow is there', () => {
  expect(finding({ ...healthy, compiler: no }, 'compiler')).toEqual({ name: 'compiler', status: 'ok', found: 'none; not needed any more' });
});

test('an unreachable hub is only a warning while a model is on disk', () => {
  const facts: DoctorFacts = { ...healthy, modelSources: [{ name: 'hub', ...no }], modelsOnDisk: ['a/b@1'] };
  expect(finding(facts, 'models: hub')?.status).toBe('warning');
  expect(hasProblem(findingsOf(facts))).toBe(false);
});

test('little memory and a filling disk are warnings', () => {
  const facts: DoctorFacts = { ...healthy, memoryBytesFree: GIBIBYTE, cacheDir: { path: '/cache', writable: true, bytesFree: GIBIBYTE } };
  expect(finding(facts, 'memory')?.status).toBe('warning');
  expect(finding(facts, 'cache folder')?.status).toBe('warning');
  expect(hasProblem(findingsOf(facts))).toBe(false);
});
