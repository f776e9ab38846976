/**
 * `npm run bench -- memory`: what is foretold of a training step's device memory, and as peer what the device counted at the step's peak, weights included, over model
 * types, tuners, dtypes and shapes: as the engine counts it before its first step, and as the control plane estimates it. A ratio below 1 is too low.
 *
 * Models have random weights, SmolLM2-135M's widths and three blocks. Every row of a pass has the same length. Arguments after `--`: --only <part of a row's name>.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openDevice } from '@tunefleet/ml-tensor';
import { CASES, MODELS, type ModelName } from './memory/cases';
import { measureStep, OpenedModels } from './memory/measure';
import { writeRandomWeights } from './model/shape';
import { OptionError } from './report/options';

interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly peer: number;
  readonly ratio: number;
}

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({ args, options: { only: { type: 'string', default: '' } } });
  const cases = CASES.filter(({ name }) => name.includes(values.only));
  if (cases.length === 0) throw new OptionError('only', values.only, `it must be part of the name of one of: ${CASES.map(({ name }) => name).join('; ')}`);
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-bench-memory-'));
  try {
    const device = await openDevice({ backend: 'tensorflow' });
    const folderOf = (name: ModelName) => join(folder, name);
    for (const name of new Set(cases.map(({ model }) => model))) await writeRandomWeights(folderOf(name), MODELS[name]);
    using models = new OpenedModels(device, folderOf);
    const rows: Row[] = [];
    for (const each of cases) {
      const { counted, estimated, measured } = await measureStep(models, each);
      const row = (what: string, foretold: number): Row => ({ name: `${each.name}; ${what}`, unit: 'MB', value: foretold / 1e6, peer: measured / 1e6, ratio: foretold / measured });
      rows.push(row('engine', counted), row('control plane', estimated));
      process.stderr.write(`${each.name}: ${(measured / 1e6).toFixed(1)} MB, engine ${(counted / measured).toFixed(3)}, control plane ${(estimated / measured).toFixed(3)}\n`);
    }
    return rows;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
