/** Several texts at once against one by one, on a tiny model: the same tokens in f32. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { writeTinyModel } from '@tunefleet/testing';
import { samplingSchema, type Sampling } from '../sampling';
import { BatchGenerator } from './batch-generator';
import { generate, type Generation } from './generate';
import { PrefixCache } from './prefix-cache';

const MAX_POSITIONS = 192;
const NO_STOP: ReadonlySet<number> = new Set();
const TEXTS = ['the spam is in the ham', 'a', 'the ham is on the spam and in the ham', 'spam', 'is in the'];
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'batch-generation-'));
  await writeTinyModel(folder, { maxPositions: MAX_POSITIONS });
});
afterAll(() => rmSync(folder, { recursive: true }));

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  let model: CausalLm;
  let prompts: Int32Array[];
  const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
  beforeAll(async () => {
    const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
    model = await loadCausalLm(await openDevice({ backend }), { folder, config, computeDtype: 'f32' });
    const tokenizer = await TextTokenizer.load(folder);
    prompts = TEXTS.map((text) => tokenizer.encode(text));
  });
  afterAll(() => model[Symbol.dispose]());

  async function alone(limits: number | readonly number[], sampling?: Sampling, stopIds = NO_STOP): Promise<Generation[]> {
    const all: Generation[] = [];
    using cache = new PrefixCache(model);
    for (const [index, prompt] of prompts.entries()) {
      const maxTokens = typeof limits === 'number' ? limits : (limits[index] as number);
      all.push(await generate(cache, prompt, { maxTokens, stopIds, ...(sampling && { sampling }) }));
    }
    return all;
  }

  test('prompts of different lengths, greedily and sampled, past the first room of the cache', async () => {
    const generator = new BatchGenerator(model);
    const limits = [6, 68, 6, 3, 6];
    expect(await generator.generate(prompts, { maxTokens: limits, stopIds: NO_STOP })).toEqual(await alone(limits));
    // The model keeps tables of the shapes it has met.
    const before = handles();
    const sampling = samplingSchema.parse({ temperature: 1.2, topK: 30, seed: 4 });
    expect(await generator.generate(prompts, { maxTokens: 4, sampling, stopIds: NO_STOP })).toEqual(await alone(4, sampling));
    expect(handles()).toBe(before);
    const promptTokens = prompts.reduce((sum, { length }) => sum + length, 0);
    // The last token of a text is not fed.
    expect(generator.tokensFed).toBe(2 * promptTokens + limits.reduce((sum, limit) => sum + limit - 1, 0) + 3 * prompts.length);
  });

  test('texts that end leave the batch and the others go on as if alone', async () => {
    const free = await alone(12);
    const stopIds = new Set([free[0]?.ids[3] ?? -1, free[2]?.ids[7] ?? -1]);
    const expected = await alone(12, undefined, stopIds);
    expect(new Set(expected.map(({ ids }) => ids.length)).size).toBeGreaterThan(1);
    expect(await new BatchGenerator(model).generate(prompts, { maxTokens: 12, stopIds })).toEqual(expected);
  });

  test('every prompt has its own limit, also none and the rest of the positions', async () => {
    const long = new Int32Array(MAX_POSITIONS - 3).fill(10);
    const limits = [5, 0, 9];
    const got = await new BatchGenerator(model).generate([prompts[0] as Int32Array, prompts[1] as Int32Array, long], { maxTokens: limits, stopIds: NO_STOP });
    expect(got.map(({ ids }) => ids.length)).toEqual([5, 0, 3]);
    expect(got[0]?.ids).toEqual((await alone(5))[0]?.ids);
  });

  test('refuses what `generate` refuses, ends when asked to and leaves nothing behind', async () => {
    const generator = new BatchGenerator(model);
    const before = handles();
    await expect(generator.generate([prompts[0] as Int32Array, new Int32Array(0)], { maxTokens: 5, stopIds: NO_STOP })).rejects.toMatchObject({ reason: 'empty_prompt' });
    const controller = new AbortController();
    setImmediate(() => controller.abort());
    await expect(generator.generate(prompts, { maxTokens: 100, stopIds: NO_STOP, signal: controller.signal })).rejects.toMatchObject({ code: 'cancelled' });
    expect(handles()).toBe(before);
  });
});

test('bf16: as many tokens, nothing left behind', async () => {
  const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  using model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config, computeDtype: 'bf16' });
  const prompts = [Int32Array.of(5, 6, 7), Int32Array.of(9)];
  const got = await new BatchGenerator(model).generate(prompts, { maxTokens: 70, stopIds: NO_STOP });
  expect(got.map(({ ids }) => ids.length)).toEqual([70, 70]);
});
