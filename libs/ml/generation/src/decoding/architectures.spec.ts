/** Generation on every decoder: greedily as Transformers continues (fixtures of the models library), and with an adapter of PEFT as without a cache. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { architectureSpecs, loadCausalLm } from '@tunefleet/ml-models';
import { loadAdapter } from '@tunefleet/ml-tuners';
import { openDevice } from '@tunefleet/ml-tensor';
import { argMax } from '../sampling';
import { BatchGenerator } from './batch-generator';
import { generate, type Generation } from './generate';
import { PrefixCache } from './prefix-cache';
import { sequenceLogits } from './sequence-logits';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const TYPES = Object.keys(architectureSpecs).filter((type) => type !== 'llama');
const OPTIONS = { maxTokens: 12, stopIds: new Set<number>() };

test.each(TYPES)('%s', async (type) => {
  const folder = join(libraries, 'models', 'fixtures', type);
  const config: unknown = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  using model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config, computeDtype: 'f32' });
  using golden = SafetensorsFile.open(join(folder, 'golden.safetensors'));
  const integers = (name: string) => new Int32Array(golden.read(name).slice().buffer);
  const prompt = integers('ids').slice(0, 8);

  using plain = new PrefixCache(model);
  expect((await generate(plain, prompt, OPTIONS)).ids).toEqual([...integers('greedy')]);

  const { hook, dispose } = await loadAdapter(model, join(libraries, 'tuners', 'fixtures', 'architectures', type));
  const sequence = [...prompt];
  for (let i = 0; i < OPTIONS.maxTokens; i++) sequence.push(argMax(sequenceLogits(model, Int32Array.from(sequence), hook).slice(-model.vocabSize)));
  using adapted = new PrefixCache(model, hook);
  expect((await generate(adapted, prompt, OPTIONS)).ids).toEqual(sequence.slice(prompt.length));
  // Several prompts at once, of different lengths, say the same.
  const prompts = [prompt, prompt.slice(0, 3), prompt.slice(2, 7)];
  for (const active of [null, hook]) {
    using cache = new PrefixCache(model, active);
    const alone: Generation[] = [];
    for (const each of prompts) alone.push(await generate(cache, each, OPTIONS));
    expect(await new BatchGenerator(model, active).generate(prompts, OPTIONS)).toEqual(alone);
  }
  dispose();
});
