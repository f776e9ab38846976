import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { parseRow } from '@tunefleet/domain-datasets';
import { IGNORED_LABEL, PackedDataset, spamAssassinExamples, TokenPool, tokeniseRow, toJsonl, type TokenisedExample } from '@tunefleet/ml-data';
import { ModelResolver, modelResolverOptions } from '@tunefleet/ml-models';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import type { DataName } from './cases';

/** Examples as both sides read them from one file. */
export interface BenchData {
  /** Token ids by example. */
  readonly ids: readonly (readonly number[])[];
  /** 1 where a token carries loss, by example. */
  readonly learned: readonly (readonly number[])[];
}

const TOKENIZER = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const OUTPUT_BYTES_MAX = 1 << 26;
/** What the quickstart cuts its mails to, and what leaves most of a mail. */
const MAIL_CHARACTERS = { mails: 160, 'long-mails': 2000 } as const;

export interface DataRequest {
  readonly name: DataName;
  /** How many; there may be fewer of real ones. */
  readonly examples: number;
  readonly vocabSize: number;
  /** The peer's interpreter, which has the dialogues. */
  readonly python: string;
  readonly folder: string;
}

/** Writes the data of a case. @returns path of a JSON file */
export async function writeBenchData(request: DataRequest): Promise<string> {
  const { name, folder } = request;
  const [, length] = /^dense-(\d+)$/.exec(name) ?? [];
  const examples = length === undefined ? await realText(request) : randomTokens(request, Number(length));
  const file = join(folder, `${name}-${examples.length}.json`);
  const data: BenchData = { ids: examples.map(({ inputIds }) => [...inputIds]), learned: examples.map(({ labels }) => Array.from(labels, (label) => Number(label !== IGNORED_LABEL))) };
  await writeFile(file, JSON.stringify(data));
  return file;
}

export function datasetOf({ ids, learned }: BenchData): PackedDataset {
  const pool = new TokenPool();
  ids.forEach((tokens, example) => {
    const inputIds = Int32Array.from(tokens);
    pool.add({ inputIds, labels: inputIds.map((id, position) => (learned[example]?.[position] === 1 ? id : IGNORED_LABEL)) });
  });
  return new PackedDataset('bench', pool.finish());
}

/** Equal rows, every token labelled: nothing to save by cleverness. */
function randomTokens({ examples, vocabSize }: DataRequest, length: number): TokenisedExample[] {
  let state = 2;
  const token = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabSize);
  };
  return Array.from({ length: examples }, () => {
    const inputIds = Int32Array.from({ length }, token);
    return { inputIds, labels: inputIds };
  });
}

/** Chats through the model's own template; answers are learned. */
async function realText({ name, examples, python }: DataRequest): Promise<TokenisedExample[]> {
  const { folder } = await new ModelResolver(modelResolverOptions()).resolve(TOKENIZER);
  const tokenizer = await TextTokenizer.load(folder);
  const lines = name === 'dialogues' ? await dialogues(python) : mails(name === 'mails' ? 'mails' : 'long-mails', examples);
  return lines.slice(0, examples).map((line, index) => {
    const parsed = parseRow(line, index + 1);
    if (!parsed.ok) throw new Error(`${name}: ${parsed.problems[0]?.message}`);
    return tokeniseRow(tokenizer, parsed.row, index + 1);
  });
}

function mails(name: keyof typeof MAIL_CHARACTERS, train: number): string[] {
  return toJsonl(spamAssassinExamples({ train, subjectCharacters: 80, bodyCharacters: MAIL_CHARACTERS[name] }).train).trim().split('\n');
}

/** The English conversations of chatterbot-corpus, in a fixed order that mixes their subjects. */
async function dialogues(python: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(python, [join(process.cwd(), 'tools/bench/chatterbot_dialogues.py')], { maxBuffer: OUTPUT_BYTES_MAX });
  return stdout.trim().split('\n');
}
