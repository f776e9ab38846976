/** Decoding with the prefix cache against the plain forward pass over the whole sequence, on a tiny model. */
import { mkdtempSync, rmSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { writeTinyModel } from '@tunefleet/testing';
import { argMax, samplingSchema } from '../sampling';
import { generate, type Generation, type GenerateOptions } from './generate';
import { PrefixCache } from './prefix-cache';
import { sequenceLogits } from './sequence-logits';
import { stopTokens } from './stop-tokens';

const MAX_POSITIONS = 64;
const NO_STOP: ReadonlySet<number> = new Set();
let folder: string;
let device: Device;
let model: CausalLm;
let tokenizer: TextTokenizer;
let prompt: Int32Array;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'generation-'));
  await writeTinyModel(folder, { maxPositions: MAX_POSITIONS });
  device = await openDevice({ backend: 'auto' });
  model = await loadCausalLm(device, { folder, config: readConfig(), computeDtype: 'f32' });
  tokenizer = await TextTokenizer.load(folder);
  prompt = tokenizer.encode('the spam is in the ham');
});
afterAll(() => {
  model[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

function readConfig(): unknown {
  return JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
}

async function run(options: Partial<GenerateOptions> = {}, ids = prompt): Promise<Generation> {
  using cache = new PrefixCache(model);
  return await generate(cache, ids, { maxTokens: 12, stopIds: NO_STOP, ...options });
}

/** Greedy continuation by a full forward pass per token. */
function slowGreedy(ids: Int32Array, count: number): number[] {
  const sequence = [...ids];
  for (let i = 0; i < count; i++) sequence.push(argMax(sequenceLogits(model, Int32Array.from(sequence)).slice(-model.vocabSize)));
  return sequence.slice(ids.length);
}

function maxDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((largest, value, index) => Math.max(largest, Math.abs(value - (b[index] as number))), 0);
}

describe('PrefixCache', () => {
  it('gives the logits of the whole sequence, whatever it held before', () => {
    using cache = new PrefixCache(model);
    const texts = ['the spam is in the ham', 'the spam is on the ham', 'the spam', 'a ham', 'a ham'];
    for (const text of texts) {
      const ids = tokenizer.encode(text);
      const expected = sequenceLogits(model, ids);
      const from = ids.length - 2;
      const rows = cache.read(ids, from);
      expect(rows).toHaveLength(2);
      rows.forEach((row, index) => expect(maxDifference(row, expected.slice((from + index) * model.vocabSize, (from + index + 1) * model.vocabSize))).toBeLessThan(1e-4));
    }
  });

  it('feeds only what is new', () => {
    using cache = new PrefixCache(model);
    cache.read(prompt);
    expect(cache.tokensFed).toBe(prompt.length);
    cache.read(Int32Array.from([...prompt, 5]));
    expect(cache.tokensFed).toBe(prompt.length + 1);
    cache.read(Int32Array.from([...prompt, 6, 7]));
    expect(cache.tokensFed).toBe(prompt.length + 3);
  });
});

describe('generate', () => {
  it('is the greedy text of the plain forward pass', async () => {
    const { ids, finishReason } = await run();
    expect(ids).toEqual(slowGreedy(prompt, 12));
    expect(finishReason).toBe('length');
  });

  it('draws the same text from the same seed, another from another', async () => {
    const sampled = (seed: number): Promise<Generation> => run({ maxTokens: 20, sampling: samplingSchema.parse({ temperature: 1.5, seed }) });
    const [first, again, other] = [await sampled(1), await sampled(1), await sampled(2)];
    expect(again).toEqual(first);
    expect(other.ids).not.toEqual(first.ids);
  });

  it('ends at a stop token, which is not part of the text', async () => {
    const { ids } = await run();
    const stop = ids[4] as number;
    const stopped = await run({ stopIds: new Set([stop]) });
    expect(stopped).toEqual({ ids: ids.slice(0, ids.indexOf(stop)), finishReason: 'stop' });
  });

  it('reports tokens as they come and ends when asked to', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const onToken = (id: number): void => {
      seen.push(id);
      if (seen.length === 3) controller.abort();
    };
    await expect(run({ onToken, signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' });
    expect(seen).toEqual(slowGreedy(prompt, 3));
  });

  it('stays within the longest sequence and refuses prompts that leave no room', async () => {
    const long = new Int32Array(MAX_POSITIONS - 3).fill(10);
    expect(await run({ maxTokens: 50 }, long)).toMatchObject({ ids: { length: 3 }, finishReason: 'length' });
    await expect(run({}, new Int32Array(MAX_POSITIONS))).rejects.toMatchObject({ code: 'invalid_input', reason: 'context_length_exceeded', details: { tokens: MAX_POSITIONS, limit: MAX_POSITIONS } });
    await expect(run({}, new Int32Array(0))).rejects.toMatchObject({ code: 'invalid_input', reason: 'empty_prompt' });
  });

  it('leaves nothing on the device', async () => {
    await run();
    const before = device.memory.liveHandles - device.cachedScalars;
    await run({ maxTokens: 5 });
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  });
});

describe('stopTokens', () => {
  it('joins what the files and the chat template say', async () => {
    const end = tokenizer.tokenId('<|im_end|>') as number;
    expect([...(await stopTokens(tokenizer, folder, readConfig()))]).toEqual([end]);
    writeFileSync(join(folder, 'generation_config.json'), JSON.stringify({ eos_token_id: [0, 7] }));
    expect([...(await stopTokens(tokenizer, folder, {}))].sort()).toEqual([0, end, 7]);
  });
});
