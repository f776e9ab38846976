/**
 * `npm run bench -- peft`: training on the SmolLM2-135M shape against Hugging Face PEFT and torch, in turns on this machine: equal rows of random tokens, and real
 * text of uneven length. Each run is a process of its own, so that its peak memory is its own; tokens are counted without padding; the first step of a run, which
 * makes kernels, counts apart. What ours computes in a dtype is held against the faster of the peer's dtypes.
 *
 * Arguments after `--`: --only <words of case names, comma-separated>, --dtypes (f32, bf16 or both; a processor without bf16 instructions takes minutes for the peer's steps in
 * bf16), --rounds, --steps; --alone leaves the peer out; --profile prints where our side's time goes,
 * by op and shape, instead; --micro-batch (ours). `--growth` measures our side alone from 128 to 2048 tokens a row and from 1 to 8 passes a step.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { referencePython } from '../verify/python-environment';
import { chooseCases, type BenchCase, type PeerBatching } from './peft/cases';
import { writeBenchData } from './peft/data';
import { trainHere, type SideOptions, type SideResult } from './peft/engine-side';
import { growthRows } from './peft/growth';
import { rowsOf, type Side } from './peft/rows';
import type { Row } from './report/row';
import { SMOLLM2_135M, writeRandomModel } from './model/shape';
import { printProfile } from './print-profile';
import { count, OptionError, someOf } from './report/options';

const execute = promisify(execFile);
const ENGINE_SIDE = 'engine-side';
const OUTPUT_BYTES_MAX = 1 << 24;

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string' },
      rounds: { type: 'string', default: '1' },
      steps: { type: 'string', default: '3' },
      dtypes: { type: 'string', default: 'f32,bf16' },
      'micro-batch': { type: 'string' },
      alone: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
      growth: { type: 'boolean', default: false },
    },
  });
  const rounds = count('rounds', values.rounds);
  // The first step of a process only warms it up.
  const steps = count('steps', values.steps, 2);
  const microBatch = values['micro-batch'] === undefined ? undefined : count('micro-batch', values['micro-batch']);
  const dtypes = someOf('dtypes', values.dtypes, ['f32', 'bf16']);
  const cases = chooseCases(values.only)
    .map((each) => ({ ...each, dtypes: each.dtypes.filter((dtype) => dtypes.includes(dtype)) }))
    .filter((each) => each.dtypes.length > 0);
  if (cases.length === 0) throw new OptionError('dtypes', values.dtypes, 'none of the chosen cases has it');
  const python = await referencePython(process.cwd());
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-bench-'));
  try {
    const model = join(folder, 'model');
    await writeRandomModel(model);
    const common = { model, steps, threads: availableParallelism(), ...(microBatch !== undefined && { microBatch }) };
    const data = (name: BenchCase['data'], examples: number) => writeBenchData({ name, examples, vocabSize: SMOLLM2_135M.vocab_size, python, folder });
    if (values.growth) return await growthRows({ ...common, data, measure: (options, label) => runEngine(options, label) });
    const rows: Row[] = [];
    for (const each of cases) {
      const options = { ...common, tuner: each.tuner, batch: each.batch, data: await data(each.data, steps * each.batch) };
      if (values.profile) printProfile((await runEngine({ ...options, dtype: 'f32', profile: true }, each.name)).op_costs ?? [], steps - 1);
      else rows.push(...rowsOf(each, await measure(each, options, { rounds, python: values.alone ? null : python })));
    }
    return rows;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** All sides of a case in turns, round by round. */
async function measure(each: BenchCase, options: Omit<SideOptions, 'dtype'>, { rounds, python }: { readonly rounds: number; readonly python: string | null }): Promise<Side[]> {
  const sides = new Map<string, Side & { runs: SideResult[] }>();
  const add = (side: Omit<Side, 'runs'>, result: SideResult): void => {
    const key = `${side.peer} ${side.dtype}`;
    sides.set(key, { ...side, runs: [...(sides.get(key)?.runs ?? []), result] });
  };
  for (let round = 1; round <= rounds; round++) {
    for (const dtype of each.dtypes) {
      add({ peer: null, dtype }, await runEngine({ ...options, dtype }, `${each.name}, ${dtype}, round ${round}: tunefleet`));
      if (python === null) continue;
      for (const peer of each.peers) add({ peer, dtype }, await runPeer(python, { ...options, dtype, batching: peer }, `${each.name}, ${dtype}, round ${round}: PEFT, ${peer}`));
    }
  }
  return [...sides.values()];
}

function runEngine(options: SideOptions, label: string): Promise<SideResult> {
  return runSide(process.execPath, [fileURLToPath(import.meta.url), ENGINE_SIDE, JSON.stringify(options)], label);
}

function runPeer(python: string, options: SideOptions & { readonly batching: PeerBatching }, label: string): Promise<SideResult> {
  return runSide(python, [join(process.cwd(), 'tools/bench/peft_side.py'), JSON.stringify(options)], label);
}

async function runSide(program: string, args: string[], label: string): Promise<SideResult> {
  const { stdout } = await execute(program, args, { maxBuffer: OUTPUT_BYTES_MAX });
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as SideResult;
  if (!result.losses.every(Number.isFinite)) throw new Error(`${label}: the losses are ${result.losses.join(', ')}`);
  if (result.step_seconds.length < 2) throw new Error(`${label}: ${result.step_seconds.length} step was made; there is too little data`);
  process.stderr.write(`${label}: steps of ${result.step_seconds.map((seconds) => seconds.toFixed(2)).join(', ')} s, peak ${(result.peak_rss_bytes / 1e6).toFixed(0)} MB\n`);
  return result;
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === ENGINE_SIDE) {
  process.stdout.write(`${JSON.stringify(await trainHere(JSON.parse(process.argv[3] ?? '') as SideOptions))}\n`);
}
