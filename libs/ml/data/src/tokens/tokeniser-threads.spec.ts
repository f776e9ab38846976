/** Files tokenised by threads, with the built thread program of `npm run setup`. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { writeTinyModel } from '@tunefleet/testing';
import { mapAhead } from './map-ahead';
import { tokeniseFile } from './tokenise-file';

const script = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..', '..', 'dist', 'tokenise-thread.mjs');
const threads = { script, count: 2, fromBytes: 0 };
const ROWS = 700;

let folder: string;
let tokenizer: TextTokenizer;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tokeniser-threads-'));
  await writeTinyModel(folder);
  tokenizer = await TextTokenizer.load(folder);
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(change: (row: number) => string | null = () => null): string {
  const path = join(folder, 'rows.jsonl');
  const row = (index: number) => change(index) ?? JSON.stringify({ prompt: `${index} `.padEnd(240 + (index % 40), 'x'), completion: `${index % 7}` });
  writeFileSync(path, Array.from({ length: ROWS }, (_, index) => `${row(index)}\n`).join(''));
  return path;
}

it('threads give what one thread gives, in the same order', async () => {
  const path = file();
  const [one, two] = [await tokeniseFile(path, { tokenizer, maxLength: 200, overLong: 'truncate-context' }), await tokeniseFile(path, { tokenizer, maxLength: 200, overLong: 'truncate-context', threads })];
  expect(two.statistics).toEqual(one.statistics);
  expect(two.statistics.truncated).toBeGreaterThan(0);
  expect(two.dataset.fingerprint).toBe(one.dataset.fingerprint);
  for (let row = 0; row < ROWS; row += 97) expect(two.dataset.example(row)).toEqual(one.dataset.example(row));
});

it('the first bad row is named as by one thread, and a stop ends the work', async () => {
  const bad = file((row) => (row >= 400 ? '{"prompt": 5}' : null));
  const [one, two] = await Promise.all([undefined, threads].map((given) => tokeniseFile(bad, { tokenizer, maxLength: 500, param: 'validation_file', ...(given && { threads: given }) }).catch((error: unknown) => error)));
  expect(one).toMatchObject({ name: 'TunefleetError', code: 'invalid_input', reason: 'invalid_validation_file', param: 'validation_file', message: expect.stringContaining('row 401') as string });
  expect({ ...(two as object), message: (two as Error).message }).toEqual({ ...(one as object), message: (one as Error).message });
  const controller = new AbortController();
  await expect(tokeniseFile(file(), { tokenizer, maxLength: 500, threads, signal: controller.signal, onProgress: () => controller.abort() })).rejects.toMatchObject({ code: 'cancelled' });
});

it('keeps order and does not run further ahead than it may', async () => {
  let [underWay, most] = [0, 0];
  const items = (async function* () {
    for (let item = 0; item < 20; item++) yield item;
  })();
  const slow = async (item: number): Promise<number> => {
    most = Math.max(most, ++underWay);
    for (let turn = 0; turn < 20 - item; turn++) await new Promise((resolve) => setImmediate(resolve));
    underWay--;
    return item;
  };
  const seen: number[] = [];
  for await (const item of mapAhead(items, slow, 4)) seen.push(item);
  expect(seen).toEqual(Array.from({ length: 20 }, (_, item) => item));
  expect(most).toBe(4);
});
