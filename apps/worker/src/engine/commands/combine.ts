import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { TunefleetError } from '@tunefleet/foundation';
import { exportCombined } from '@tunefleet/ml-export';
import { COMBINATIONS, type Combination } from '@tunefleet/ml-tuners';
import { adapterWeights, numberOf } from './adapter-weights';
import { modelOptions, resolveLocalModel } from './local-engine';

const USAGE = `usage: tunefleet adapters combine <adapter> <adapter> ... --out <folder> [options]

Adapters are folders, ids or ft: names of LoRAs of one base; the result is a PEFT folder.

  --weights <w,w,...>      one per adapter; default: 1 each
  --kind <kind>            ${COMBINATIONS.join(', ')}; default cat, which is exact
  --density <d>            share of the values that stay, for ties, dare_* and magnitude_prune
  --rank <r>               of the result, for svd; default: the largest of the adapters
  --seed <n>               of what dare_* drops; default 0
  --model <name>           base model; default: the one the first adapter names
  --revision <name>        branch, tag or commit of the model
`;

/** Makes one LoRA from several. */
export async function combineCommand(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: modelOptions.model,
      revision: modelOptions.revision,
      adapter: { type: 'string', multiple: true, default: [] },
      weights: { type: 'string' },
      kind: { type: 'string', default: 'cat' },
      density: { type: 'string' },
      rank: { type: 'string' },
      seed: { type: 'string', default: '0' },
      out: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const { adapter: folders, kind, out } = values;
  if (out === undefined) throw new TunefleetError('invalid_input', `--out is missing\n${USAGE}`);
  if (!isCombination(kind)) throw new TunefleetError('invalid_input', `--kind is "${kind}"; it must be ${COMBINATIONS.join(', ')}`);
  const weights = adapterWeights(values.weights, folders.length);
  const optional = (option: 'density' | 'rank'): number | null => (values[option] === undefined ? null : numberOf(option, values[option]));
  const { id, folder, config } = await resolveLocalModel({ model: values.model, revision: values.revision, adapter: folders[0] });
  const rank = await exportCombined(resolve(out), {
    base: { id, revision: null, folder, config },
    adapters: folders.map((each, index) => ({ folder: each, weight: weights[index] as number })),
    combination: kind,
    density: optional('density'),
    rank: optional('rank'),
    seed: numberOf('seed', values.seed),
  });
  process.stderr.write(`${folders.length} adapters combined into one of rank ${rank}, written to ${resolve(out)}\n`);
}

function isCombination(kind: string): kind is Combination {
  return (COMBINATIONS as readonly string[]).includes(kind);
}
