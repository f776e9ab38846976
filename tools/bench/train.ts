/**
 * `npm run bench -- train`: LoRA training on the SmolLM2-135M shape against Hugging Face PEFT and torch, in turns on this machine.
 * Each run is a process of its own, so that its peak memory is its own. Arguments after `--`: --steps, --rounds, --batch, --length, --rank, --dtype, --micro-batch;
 * --profile prints instead where our side's time goes, by op and shape.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { openDevice, probeDevice } from '@tunefleet/ml-tensor';
import { chooseBatching } from '@tunefleet/ml-training';
import { referencePython } from '../verify/python-environment';
import { trainHere, type SideOptions, type SideResult } from './train/engine-side';
import { writeRandomModel } from './train/shape';

const execute = promisify(execFile);
const ENGINE_SIDE = 'engine-side';
const OUTPUT_BYTES_MAX = 1 << 24;

interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly peer?: number;
  readonly ratio?: number;
}

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({
    args,
    options: {
      steps: { type: 'string', default: '5' },
      rounds: { type: 'string', default: '2' },
      batch: { type: 'string', default: '4' },
      length: { type: 'string', default: '256' },
      rank: { type: 'string', default: '8' },
      dtype: { type: 'string', default: 'auto' },
      'micro-batch': { type: 'string' },
      profile: { type: 'boolean', default: false },
    },
  });
  const [steps, rounds, batch, length, rank] = [values.steps, values.rounds, values.batch, values.length, values.rank].map(positive) as [number, number, number, number, number];
  if (steps < 2) throw new Error('--steps must be at least 2: the first step of a process only warms it up');
  const dtype = await settleDtype(values.dtype);
  // With memory to spare, as here, jobs choose the same.
  const { microBatchSize: microBatch } = chooseBatching({
    batchSize: batch,
    longestRow: length,
    tokensPerPass: 1024,
    microBatchSizeMax: values['micro-batch'] === undefined ? undefined : positive(values['micro-batch']),
    availableBytes: Infinity,
    estimateBytes: () => 0,
  });
  const root = process.cwd();
  const python = values.profile ? null : await referencePython(root);
  const model = await mkdtemp(join(tmpdir(), 'tunefleet-bench-'));
  try {
    await writeRandomModel(model);
    const options: SideOptions = { model, steps, batch, length, rank, threads: availableParallelism(), dtype, microBatch, profile: values.profile };
    const ours: SideResult[] = [];
    const theirs: SideResult[] = [];
    for (let round = 1; round <= rounds; round++) {
      ours.push(await runSide(process.execPath, [fileURLToPath(import.meta.url), ENGINE_SIDE, JSON.stringify(options)], `round ${round}: tunefleet`));
      if (python !== null) theirs.push(await runSide(python, [join(root, 'tools/bench/train_peft.py'), ...peftArguments(options)], `round ${round}: PEFT`));
    }
    if (values.profile) printProfile(ours[0], options);
    return rowsOf(ours, theirs, options);
  } finally {
    await rm(model, { recursive: true, force: true });
  }
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`expected a positive whole number, got "${text}"`);
  return value;
}

/** `auto` as the engine decides it, so that the rows show what users get. */
async function settleDtype(choice: string): Promise<'f32' | 'bf16'> {
  if (choice === 'f32' || choice === 'bf16') return choice;
  if (choice !== 'auto') throw new Error(`--dtype is auto, f32 or bf16, not "${choice}"`);
  return probeDevice(await openDevice({ backend: 'tensorflow' })).recommended;
}

function peftArguments({ model, steps, batch, length, rank, threads, dtype }: SideOptions): string[] {
  const given = { config: join(model, 'config.json'), steps, batch, length, rank, threads, dtype };
  return Object.entries(given).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

async function runSide(program: string, args: string[], label: string): Promise<SideResult> {
  const { stdout } = await execute(program, args, { maxBuffer: OUTPUT_BYTES_MAX });
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as SideResult;
  if (!result.losses.every(Number.isFinite)) throw new Error(`${label}: the losses are ${result.losses.join(', ')}`);
  process.stderr.write(`${label}: steps of ${result.step_seconds.map((seconds) => seconds.toFixed(2)).join(', ')} s, peak ${(result.peak_rss_bytes / 1e6).toFixed(0)} MB\n`);
  return result;
}

function rowsOf(ours: readonly SideResult[], theirs: readonly SideResult[], { batch, length, dtype }: SideOptions): Row[] {
  const label = `LoRA training, ${batch} x ${length}, ${dtype}`;
  const speed = (sides: readonly SideResult[]): number => (batch * length) / median(sides.flatMap((side) => side.step_seconds.slice(1)));
  const peak = (sides: readonly SideResult[]): number => median(sides.map((side) => side.peak_rss_bytes / 1e6));
  const firstStep = (sides: readonly SideResult[]): number => median(sides.map((side) => side.step_seconds[0] ?? NaN));
  const row = (name: string, unit: string, of: (sides: readonly SideResult[]) => number): Row => {
    const value = of(ours);
    return theirs.length === 0 ? { name, unit, value } : { name, unit, value, peer: of(theirs), ratio: value / of(theirs) };
  };
  return [
    row(`${label}: speed`, 'tokens/s', speed),
    row(`${label}: peak memory`, 'MB RSS', peak),
    row(`${label}: first step`, 's', firstStep),
  ];
}

/** Ops that together take 95 % of the time. */
function printProfile(side: SideResult | undefined, { steps }: SideOptions): void {
  const costs = side?.op_costs ?? [];
  const total = costs.reduce((sum, { seconds }) => sum + seconds, 0);
  process.stdout.write(`${(total / (steps - 1)).toFixed(2)} s in ops per step\n  ms/step  calls/step  ms/call    GB/s  op\n`);
  let seen = 0;
  for (const { label, calls, seconds, bytes } of costs) {
    if (seen > 0.95 * total) break;
    seen += seconds;
    const cells = [(1000 * seconds) / (steps - 1), calls / (steps - 1), (1000 * seconds) / calls, bytes / seconds / 1e9];
    process.stdout.write(`${cells.map((cell, index) => cell.toFixed(index === 0 ? 0 : index === 1 ? 0 : 2).padStart([9, 12, 9, 8][index] ?? 0)).join('')}  ${label}\n`);
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === ENGINE_SIDE) {
  process.stdout.write(`${JSON.stringify(await trainHere(JSON.parse(process.argv[3] ?? '') as SideOptions))}\n`);
}
