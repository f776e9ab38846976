/** SWIFT's Prompt (fixtures of `tools/golden/deep_prompt_fixture.py`): logits, loss, every gradient, files, blocks that are named, and refusals. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodeSafetensors, SafetensorsFile } from '@tunefleet/ml-formats';
import type { CausalLm } from '@tunefleet/ml-models';
import { createTuner, loadAdapter, parseTunerSpec, specHalfOf, type Tuner } from '..';
import { largest, logitsWith, maxDifference, startWith, trainingPass } from '../testing';
import { handlesOf, openBase } from '../virtual-tokens/testing';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'fixtures', 'deep-prompt-tuning');
const [rows, columns, n, C] = [2, 20, 5, 32];
const GPT2 = join(fixtures, 'gpt2');
const BLOCKS = { gpt2: null, tied: null, qwen3: ['layers.0'] } as const;

function goldenOf(base: keyof typeof BLOCKS) {
  const bytes = (name: string) => {
    using file = SafetensorsFile.open(join(fixtures, base, 'golden.safetensors'));
    return file.read(name).slice().buffer;
  };
  const floats = (name: string) => new Float32Array(bytes(name));
  const valuesOf = ({ parameters }: Tuner) => Float32Array.from(parameters.flatMap(({ name }) => [...floats(`value.${name}`)]));
  return { floats, batch: { ids: new Int32Array(bytes('ids')), rows, columns }, labels: new Int32Array(bytes('labels')), valuesOf };
}

let work = '';
let gpt2: CausalLm;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'deep-prompt-'));
  gpt2 = await openBase('gpt2');
});
afterAll(async () => {
  gpt2[Symbol.dispose]();
  await rm(work, { recursive: true, force: true });
});

describe.each(Object.keys(BLOCKS) as (keyof typeof BLOCKS)[])('on %s', (base) => {
  const golden = goldenOf(base);

  test.each([
    ['tensorflow', 'f32'],
    ['wasm', 'f32'],
    ['tensorflow', 'bf16'],
  ] as const)('loss and every gradient are those of SWIFT on %s in %s, also of recomputed blocks', async (backend, dtype) => {
    using model = await openBase(base, backend, dtype);
    const tuner = createTuner(parseTunerSpec({ kind: 'deep-prompt-tuning', prompt_length: n, target_modules: BLOCKS[base] }), model);
    // The model keeps tables for every length it has met.
    trainingPass(model, tuner, golden.valuesOf(tuner), golden.batch, golden.labels);
    const before = handlesOf(model);
    for (const recomputeBlocks of [false, true]) {
      const { loss, gradients } = trainingPass(model, tuner, golden.valuesOf(tuner), golden.batch, golden.labels, { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(dtype === 'f32' ? 2e-5 : 0.1);
      tuner.parameters.forEach(({ name }, index) => {
        const wanted = golden.floats(`grad.${name}`);
        expect(largest(wanted)).toBeGreaterThan(1e-4);
        expect(maxDifference(gradients[index] ?? [], wanted)).toBeLessThan(dtype === 'f32' ? 1e-5 + 5e-4 * largest(wanted) : 0.15 * largest(wanted));
      });
    }
    expect(handlesOf(model)).toBe(before);
  });
});

test('a folder of SWIFT computes what it computes there, at once and token by token, and is written alike', async () => {
  const golden = goldenOf('gpt2');
  const alone = logitsWith(gpt2, golden.batch);
  const warm = await loadAdapter(gpt2, GPT2);
  logitsWith(gpt2, golden.batch, { adapter: warm.hook });
  warm.dispose();
  const before = handlesOf(gpt2);
  const adapter = await loadAdapter(gpt2, GPT2);
  expect(maxDifference(logitsWith(gpt2, golden.batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
  const cache = gpt2.openCache(1);
  for (let at = 0; at < columns; at++) {
    const got = logitsWith(gpt2, { ids: golden.batch.ids.slice(at, at + 1), rows: 1, columns: 1 }, { adapter: adapter.hook, cache });
    expect(maxDifference(got, golden.floats('logits').subarray(at * 64, (at + 1) * 64))).toBeLessThan(1e-4);
  }
  cache[Symbol.dispose]();
  const folder = join(work, 'again');
  await adapter.tuner.save(adapter.values, folder, { id: 'tiny/gpt2', revision: 'local-1' });
  adapter.dispose();
  expect(handlesOf(gpt2)).toBe(before);
  expect(logitsWith(gpt2, golden.batch)).toEqual(alone);
  const config = async (at: string) => JSON.parse(await readFile(join(at, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
  expect(await config(folder)).toEqual({ ...(await config(GPT2)), target_modules: ['transformer.h.0', 'transformer.h.1'] });
  using theirs = SafetensorsFile.open(join(GPT2, 'adapter_model.safetensors'));
  using ours = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
  expect([...ours.tensors.keys()]).toEqual([...theirs.tensors.keys()]);
  for (const [name, { shape }] of theirs.tensors) {
    expect(ours.entry(name).shape).toEqual(shape);
    expect(Buffer.from(ours.read(name)).equals(theirs.read(name))).toBe(true);
  }
});

test('starts within the bound that torch takes for [1, n, C]', () => {
  const spec = parseTunerSpec({ kind: 'deep-prompt-tuning' });
  const tuner = createTuner(spec, gpt2);
  expect(tuner.parameters.map(({ name, shape }) => [name, shape])).toEqual([0, 1].map((layer) => [`transformer.h.${layer}.prompt_default.prompt_token`, [16, C]]));
  expect(specHalfOf(spec).countParameters(spec, gpt2)).toBe(tuner.parameterCount);
  const bound = Math.sqrt(6 / (C * 17));
  const most = largest(tuner.initialValues(3, startWith(gpt2)));
  expect(most).toBeLessThanOrEqual(bound);
  expect(most).toBeGreaterThan(0.98 * bound);
});

test.each([
  [{ attach_front: false }, 'tuner.attach_front: must be true: behind the text no token of a causal model would see the virtual tokens'],
  [{ extract_embedding: true }, 'tuner.extract_embedding: must be false'],
  [{ target_modules: ['h.1'] }, 'leaves out "transformer.h.0", where virtual tokens enter'],
  [{ target_modules: 'nothing' }, 'tuner.target_modules: "nothing" matches no block of this gpt2 model; its blocks are "transformer.h.0" to "transformer.h.1"'],
  [{ target_modules: '.*h.0.*' }, 'also names "transformer.h.0.'],
  [{ target_modules: '(' }, 'tuner.target_modules'],
  [{ dim: 16 }, 'tuner.dim: is 16, but this gpt2 model is 32 wide; leave it out'],
  [{ dim: [32] }, 'tuner.dim: has 1 widths for 2 blocks'],
  [{ prompt_len: 5 }, 'tuner.prompt_len: is not a field of deep prompt tuning'],
])('%j is refused', (fields, message) => {
  expect(() => createTuner(parseTunerSpec({ kind: 'deep-prompt-tuning', ...fields }), gpt2)).toThrow(message);
});

test.each([
  [{ attach_front: false }, undefined, 'attach_front = false'],
  [{ extract_embedding: true }, undefined, 'extract_embedding = true'],
  [{ prompt_length: 4 }, undefined, 'is [1, 5, 32], which would have to be [1, 4, 32]'],
  [{}, ['transformer.h.1.prompt_a.prompt_token'], 'it has no virtual tokens for the first block'],
  [{}, ['transformer.h.0.prompt_a.prompt_token', 'transformer.h.1.prompt_ab.prompt_token'], 'it holds the adapters a, ab'],
  [{}, ['transformer.h.0.prompt_a.prompt_token', 'transformer.h.7.prompt_a.prompt_token'], '1 of its tensors belong to no block of this gpt2 model: transformer.h.7'],
  [{}, ['transformer.h.0.lora_A.weight'], 'a tensor that is not known: "transformer.h.0.lora_A.weight"'],
])('a folder with %j and tensors %j is refused', async (change, names, message) => {
  const folder = await mkdtemp(join(work, 'changed-'));
  await cp(GPT2, folder, { recursive: true });
  const path = join(folder, 'adapter_config.json');
  await writeFile(path, JSON.stringify({ ...(JSON.parse(await readFile(path, 'utf8')) as object), ...change }));
  if (names) await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors(names.map((name) => ({ name, dtype: 'F32', shape: [1, n, C], data: new Uint8Array(4 * n * C) }))));
  await expect(loadAdapter(gpt2, folder)).rejects.toMatchObject({ code: 'incompatible_artifact', message: expect.stringContaining(message) as string });
});

test('another adapter name is read', async () => {
  const folder = await mkdtemp(join(work, 'named-'));
  await cp(GPT2, folder, { recursive: true });
  using file = SafetensorsFile.open(join(GPT2, 'adapter_model.safetensors'));
  await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors([...file.tensors].map(([name, { shape }]) => ({ name: name.replace('prompt_default', 'prompt_my-prompt'), dtype: 'F32', shape, data: file.read(name).slice() }))));
  const [named, plain] = [await loadAdapter(gpt2, folder), await loadAdapter(gpt2, GPT2)];
  expect(named.values).toEqual(plain.values);
  for (const adapter of [named, plain]) adapter.dispose();
});
