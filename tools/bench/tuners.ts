/**
 * `npm run bench -- tuners`: every tuner of the registry, with its defaults, on one base and the same examples. The peer of every row is LoRA with its defaults in the
 * same run. A bypass has rows of its own for the first epoch and for later ones, which do without the base model.
 *
 * Examples are questions of random tokens with answers of which only a part of the row is learned, as in instruction tuning; the base is of SmolLM2-135M's shape
 * with random weights, unless --model names a folder. Arguments after `--`: --steps (per epoch), --epochs, --rounds (all tuners in turns), --batch, --length, --answer (learned tokens of a row),
 * --layers, --only <names, comma-separated>, --dtype, --model.
 */
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import { describeCausalLm, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, probeDevice } from '@tunefleet/ml-tensor';
import { chooseBatching, startState, stemCacheBytes, Trainer } from '@tunefleet/ml-training';
import { createTuner, fixedStates, parseTunerSpec, specHalfOf, tunerSpecs } from '@tunefleet/ml-tuners';
import { writeRandomModel } from './model/shape';
import { answersToQuestions, type DataShape } from './tuners/data';
import { count, counts, oneOf, OptionError, someOf } from './report/options';
import { median, type Row } from './report/row';

/** Forms of a tuner that are measured beside its defaults. */
function variantsFor(layers: number): Readonly<Record<string, Readonly<Record<string, unknown>>>> {
  const quarter = Math.max(1, Math.round(layers / 4));
  return {
    'lora on all linear maps': { kind: 'lora', target_modules: 'all-linear' },
    'lora on the last quarter': { kind: 'lora', layers_to_transform: Array.from({ length: quarter }, (_, index) => layers - quarter + index) },
    'qlora in fp4': { kind: 'qlora', bnb_4bit_quant_type: 'fp4', bnb_4bit_use_double_quant: false },
    'lora with DoRA': { kind: 'lora', use_dora: true },
    'restuning with res_prefix': { kind: 'restuning', tuner_cfg: 'res_prefix' },
    'full on the last quarter': { kind: 'full', last_blocks: quarter },
  };
}
const PEER = 'lora';

interface Measured {
  readonly parameters: number;
  /** Seconds of every step, by round. */
  readonly rounds: readonly (readonly number[])[];
  readonly losses: readonly number[];
  /** Highest of a step, weights included, and what of it is not weights. */
  readonly peakBytes: number;
  readonly stepBytes: number;
  readonly savedBytes: number;
  /** Host bytes of kept hidden states; null: none stay as they are. */
  readonly keptBytes: number | null;
}

interface Run extends DataShape {
  readonly steps: number;
  readonly epochs: number;
  readonly batch: number;
}

export async function run(args: string[]): Promise<Row[]> {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const { values } = parseArgs({
    args,
    options: { steps: text('4'), epochs: text('2'), rounds: text('1'), batch: text('4'), length: text('256'), answer: text('64'), layers: text('30'), dtype: text('auto'), only: { type: 'string' }, model: { type: 'string' } },
  });
  const { steps, rounds, batch, length, answer, layers } = counts(values, ['steps', 'rounds', 'batch', 'length', 'answer', 'layers']);
  // Later epochs are what kept hidden states are measured for.
  const epochs = count('epochs', values.epochs, 2);
  const dtype = oneOf('dtype', values.dtype, ['auto', 'f32', 'bf16']);
  if (answer >= length) throw new OptionError('answer', values.answer, `it must be less than --length, ${length}`);
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-bench-tuners-'));
  try {
    const base = values.model ?? join(folder, 'model');
    if (values.model === undefined) await writeRandomModel(base, layers);
    const device = await openDevice({ backend: 'tensorflow' });
    const computeDtype = dtype === 'auto' ? probeDevice(device).recommended : dtype;
    const config = JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown;
    const specs: Readonly<Record<string, Readonly<Record<string, unknown>>>> = { ...Object.fromEntries(Object.keys(tunerSpecs).map((kind) => [kind, { kind }])), ...variantsFor(describeCausalLm(config).layers) };
    const known = Object.keys(specs);
    const names = [PEER, ...(values.only === undefined ? known : someOf('only', values.only, known)).filter((name) => name !== PEER)];
    using model = await loadCausalLm(device, { folder: base, config, computeDtype });
    const shape: Run = { steps, epochs, batch, length, answer };
    const dataset = answersToQuestions(steps * batch, shape, model.vocabSize);
    // The first pass of a process makes kernels and maps memory.
    await measure(model, { kind: PEER }, answersToQuestions(batch, shape, model.vocabSize), { ...shape, steps: 1, epochs: 1 }, join(folder, 'first'));
    const measured = new Map<string, Measured>();
    for (const [index, name] of Array.from({ length: rounds }, () => [...names.entries()]).flat()) {
      const spec = parseTunerSpec(specs[name]);
      const quantisation = specHalfOf(spec).baseQuantisation?.(spec);
      using own = quantisation && (await loadCausalLm(device, { folder: base, config, computeDtype, quantisation }));
      if (own) process.stderr.write(`${name}: weights of ${(own.weightBytes / 2 ** 20).toFixed(1)} MiB beside ${(model.weightBytes / 2 ** 20).toFixed(1)} MiB in ${computeDtype}\n`);
      const result = await measure(own ?? model, specs[name] ?? {}, dataset, shape, join(folder, `saved-${index}`));
      measured.set(name, { ...result, peakBytes: result.peakBytes - (own ? model.weightBytes : 0), rounds: [...(measured.get(name)?.rounds ?? []), ...result.rounds] });
      process.stderr.write(`${name}: steps of ${result.rounds.flat().map((seconds) => seconds.toFixed(2)).join(', ')} s, loss ${result.losses[0]?.toFixed(3)} -> ${result.losses.at(-1)?.toFixed(3)}\n`);
    }
    return rowsOf(measured, shape);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measure(model: CausalLm, fields: Readonly<Record<string, unknown>>, dataset: TokenisedDataset, { steps, epochs, batch, length }: Run, folder: string): Promise<Measured> {
  const { device } = model;
  const spec = parseTunerSpec(fields);
  const half = specHalfOf(spec);
  const tuner = createTuner(spec, model);
  const state = startState(tuner.initialValues(1, { model, tokenise: () => Int32Array.of(1, 2, 3) }));
  // With memory to spare, as here, jobs choose the same.
  const { microBatchSize } = chooseBatching({ batchSize: batch, longestRow: length, tokensPerPass: 1024, availableBytes: Infinity, estimateBytes: () => 0 });
  const fixed = fixedStates(spec, model);
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { seed: 1, epochs, batchSize: batch, learningRate: half.learningRate, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
    batching: { microBatchSize, recomputeBlocks: false, ...(fixed ? { keptStems: { untouchedBlocks: fixed.untouchedBlocks, bytes: Infinity, hostBytes: Infinity, directory: null } } : {}) },
    state,
  });
  const seconds: number[] = [];
  const losses: number[] = [];
  const resting = device.memory.liveBytes;
  device.resetPeak();
  while (!trainer.finished) {
    const step = await trainer.trainStep();
    if (step === null) throw new Error('nobody asked to stop');
    seconds.push(step.seconds);
    losses.push(step.loss);
  }
  if (seconds.length !== steps * epochs) throw new Error(`${seconds.length} steps were made, not ${steps * epochs}`);
  const { peakBytes } = device.memory;
  await tuner.save(state.values, folder, { id: 'bench/base', revision: 'none' });
  return {
    parameters: tuner.parameterCount,
    rounds: [seconds],
    losses,
    peakBytes,
    stepBytes: peakBytes - resting,
    savedBytes: await bytesIn(folder),
    keptBytes: fixed === null ? null : stemCacheBytes(dataset, fixed, model.hiddenSize, model.computeDtype),
  };
}

async function bytesIn(folder: string): Promise<number> {
  const sizes = await Promise.all((await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function rowsOf(measured: ReadonlyMap<string, Measured>, { steps, epochs, batch, length }: Run): Row[] {
  const peer = measured.get(PEER) as Measured;
  const rows: Row[] = [];
  for (const [name, result] of measured) {
    const add = (what: string, unit: string, of: (side: Measured) => number) => {
      const [value, other] = [of(result), of(peer)];
      rows.push(name === PEER ? { name: `${name}: ${what}`, unit, value } : { name: `${name}: ${what}`, unit, value, peer: other, ratio: value / other });
    };
    const epoch = (first: number, last: number) => (side: Measured) => median(side.rounds.flatMap((seconds) => seconds.slice(first * steps, last * steps)));
    const all = epoch(0, epochs);
    add('trained parameters', '', ({ parameters }) => parameters);
    if (result.keptBytes === null) {
      add('step', 's', all);
      add('speed', 'tokens/s', (side) => (batch * length) / all(side));
    } else {
      for (const [when, time] of [['first epoch', epoch(0, 1)], ['later epochs', epoch(1, epochs)]] as const) {
        add(`step, ${when}`, 's', (side) => (side === peer ? all(side) : time(side)));
        add(`speed, ${when}`, 'tokens/s', (side) => (batch * length) / (side === peer ? all(side) : time(side)));
      }
      rows.push({ name: `${name}: hidden states kept on the host`, unit: 'MB', value: result.keptBytes / 1e6 });
    }
    add('device memory at its peak', 'MB', ({ peakBytes }) => peakBytes / 1e6);
    add('of it beyond the weights', 'MB', ({ stepBytes }) => stepBytes / 1e6);
    add(`loss of step ${steps * epochs}`, 'nats', ({ losses }) => losses.at(-1) ?? NaN);
    add('saved', 'kB', ({ savedBytes }) => savedBytes / 1e3);
  }
  return rows;
}
