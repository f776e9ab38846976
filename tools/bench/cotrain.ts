/**
 * `npm run bench -- cotrain`: several small LoRA runs on one base together, and the same runs one after the other, in turns.
 *
 * "engine": in one process. Every run has rows of its own random data, of which the last part is learned, as in instruction tuning; the base is of SmolLM2-135M's shape with random
 * weights, unless --model names a folder. "orchestrated": as jobs through the API of a service of its own with one worker, whose team lets them share it, against the same that decline;
 * the base is SmolLM2-135M-Instruct, unless --base names another. Arguments after `--`: --only (engine, orchestrated; with commas), --runs, --rank, --targets, --rounds,
 * --dtype; of engine: --steps (per round), --batch, --length, --answer (learned tokens of a row), --layers, --model, and --profile, which prints instead where the time of steps together
 * goes, by op and shape; of orchestrated: --job-steps (10 at least), --base.
 */
import { parseArgs } from 'node:util';
import { measureEngine } from './cotrain/engine';
import { measureOrchestrated } from './cotrain/orchestrated';
import type { Row } from './report/row';
import { oneOf, someOf } from './report/options';

const PARTS = ['engine', 'orchestrated'] as const;

export async function run(args: string[]): Promise<Row[]> {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const { values } = parseArgs({
    args,
    options: {
      ...{ only: text(PARTS.join(',')), runs: text('8'), rank: text('8'), targets: text('all-linear'), steps: text('3'), rounds: text('3'), dtype: text('auto') },
      ...{ batch: text('1'), length: text('48'), answer: text('24'), layers: text('30'), model: { type: 'string' }, profile: { type: 'boolean', default: false } },
      'job-steps': text('10'),
      base: text('HuggingFaceTB/SmolLM2-135M-Instruct'),
    },
  });
  const only = someOf('only', values.only, PARTS);
  oneOf('dtype', values.dtype, ['auto', 'f32', 'bf16']);
  return [...(only.includes('engine') ? await measureEngine(values) : []), ...(only.includes('orchestrated') && !values.profile ? await measureOrchestrated(values) : [])];
}
