/**
 * A published model through converter, loader, tokenizer and decoder: stories260K must tell the story that was published with it.
 * Needs its files (karpathy/tinyllamas: stories260K.bin and tok512.bin) in the folder that TUNEFLEET_STORIES260K_DIR names.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { generate, PrefixCache } from '@tunefleet/ml-generation';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { convertLlama2c } from './llama2c';

jest.setTimeout(60_000);

const STORY =
  'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.';

const source = process.env['TUNEFLEET_STORIES260K_DIR'];
(source ? test : test.skip)('stories260K tells its published story (skipped unless TUNEFLEET_STORIES260K_DIR names its folder)', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stories-'));
  try {
    await convertLlama2c({ checkpoint: join(source as string, 'stories260K.bin'), tokenizer: join(source as string, 'tok512.bin') }, folder);
    const tokenizer = await TextTokenizer.load(folder);
    const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
    using model = await loadCausalLm(await openDevice({ backend: 'auto' }), { folder, config, computeDtype: 'f32' });
    using cache = new PrefixCache(model);
    const { ids } = await generate(cache, tokenizer.encode('', { addSpecialTokens: true }), { maxTokens: 80, stopIds: new Set() });
    expect(tokenizer.decode(ids, { skipSpecialTokens: true }).trim().slice(0, STORY.length)).toBe(STORY);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
