/** Logits of a base model with a PEFT adapter (or of the base alone): ours against those of Hugging Face Transformers and PEFT, for the same token ids. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { readAdapterFiles } from '@tunefleet/ml-formats';
import { ModelResolver, modelResolverOptions } from '@tunefleet/ml-models/specs';
import { compareLogits, LIMITS, type Comparison, type VerifiedDtype } from './compare-logits';

const USAGE = `usage: node tools/verify.mjs [--adapter <PEFT folder>] [--model <owner/name or folder>] [--dtype f32|bf16|both] [--text-file <file>] [--json <file>]

  --model      may be left out beside --adapter, which names its own base
  --dtype      what ours is computed in, default f32; the reference is in f32
  --text-file  one text per line; default: a few sentences
Installs torch, transformers and peft on first use, or takes the interpreter that TUNEFLEET_REFERENCE_PYTHON names.
`;

const TEXTS = [
  'The capital of France is Paris, and the capital of Italy is Rome.',
  'def add(a, b):  return a + b  # 1 + 2 = 3',
  'Subject: win a free holiday now!!! Call 0800 123 456 before midnight to claim your prize.',
  'Zoë a dit : « Voilà 日本 », puis elle est partie.',
];

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      adapter: { type: 'string' },
      model: { type: 'string' },
      dtype: { type: 'string', default: 'f32' },
      'text-file': { type: 'string' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return true;
  }
  const adapter = values.adapter === undefined ? null : resolve(values.adapter);
  const base = await baseFolder(values.model, adapter);
  const work = await mkdtemp(join(tmpdir(), 'tunefleet-verify-'));
  try {
    const textFile = values['text-file'] === undefined ? join(work, 'texts.txt') : resolve(values['text-file']);
    if (values['text-file'] === undefined) await writeFile(textFile, `${TEXTS.join('\n')}\n`);
    const results: Comparison[] = [];
    for (const dtype of dtypesFrom(values.dtype)) {
      const result = await compareLogits({ root: process.env['TUNEFLEET_ROOT'] ?? process.cwd(), base, adapter, textFile, work, dtype });
      process.stdout.write(`${describe(result)}\n`);
      results.push(result);
    }
    if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(results, null, 2)}\n`);
    return results.every(({ passed }) => passed);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function baseFolder(model: string | undefined, adapter: string | null): Promise<string> {
  const named = adapter === null ? {} : (await readAdapterFiles(adapter)).config;
  const id = model ?? text(named['base_model_name_or_path']) ?? null;
  if (id === null) throw new TunefleetError('invalid_input', `name a model with --model or an adapter with --adapter\n${USAGE}`);
  const revision = model === undefined ? text(named['revision']) : undefined;
  const resolver = new ModelResolver({ ...modelResolverOptions(), localRoots: 'any' });
  return (await resolver.resolve(id, { revision })).folder;
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

function dtypesFrom(text: string): VerifiedDtype[] {
  if (text === 'both') return ['f32', 'bf16'];
  if (text === 'f32' || text === 'bf16') return [text];
  throw new TunefleetError('invalid_input', `--dtype is "${text}"; it must be f32, bf16 or both`);
}

function describe({ dtype, texts, positions, maxAbsDifference, sameTopToken, referenceInDtype, passed }: Comparison): string {
  const share = `${(100 * sameTopToken).toFixed(1)} % same top token`;
  const beside = referenceInDtype === null ? '' : `; the reference in ${dtype} is ${referenceInDtype.fromItself.toPrecision(3)} away from itself in f32, and ${referenceInDtype.fromOurs.toPrecision(3)} from ours`;
  return `${passed ? 'ok    ' : 'FAILED'} ${dtype.padEnd(4)} max abs difference ${maxAbsDifference.toPrecision(3)} (limit ${LIMITS[dtype]}), ${share}, ${positions} positions of ${texts} texts${beside}`;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  process.stderr.write(`verify: ${errorMessage(error)}\n`);
  process.exitCode = 2;
}
