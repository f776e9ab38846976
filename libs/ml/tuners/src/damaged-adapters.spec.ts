/**
 * Adapter folders of every kind damaged at random, from a fixed seed and a fresh one: configuration or weights. Each is loaded, or refused with `incompatible_artifact`;
 * never anything else, nothing is left on the device, and nothing takes long.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorCode } from '@tunefleet/foundation';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { damagedBytes, damagedJson, damageSeeds, seededRandom } from '@tunefleet/testing';
import { loadAdapter } from './registry';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const FOLDERS = ['peft-lora', 'peft-dora', 'peft-tokens', 'peft-ia3', 'swift-adapter', 'swift-side', 'virtual-tokens/prompt-tuning/tied', 'virtual-tokens/prefix-tuning/tied', 'virtual-tokens/p-tuning/tied', 'deep-prompt-tuning/gpt2', 'restuning-branches/adapter', 'swift-restuning/plain'];
const ROUNDS = 40;

const models = new Map<string, CausalLm>();
let work: string;
beforeAll(async () => {
  for (const base of ['tied', 'gpt2']) {
    const folder = join(libraries, 'models', 'fixtures', base);
    models.set(base, await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' }));
  }
  work = mkdtempSync(join(tmpdir(), 'damaged-adapters-'));
});
afterAll(() => {
  for (const model of models.values()) model[Symbol.dispose]();
  rmSync(work, { recursive: true, force: true });
});

test.each(FOLDERS.flatMap((folder) => damageSeeds().map((seed) => [folder, seed] as const)))('%s from seed %d', async (name, seed) => {
  const model = models.get(name.endsWith('gpt2') ? 'gpt2' : 'tied') as CausalLm;
  const source = join(libraries, 'tuners', 'fixtures', name);
  const folder = join(work, `${name.replaceAll('/', '-')}-${seed}`);
  cpSync(source, folder, { recursive: true });
  const files = { config: join(folder, 'adapter_config.json'), weights: join(folder, 'adapter_model.safetensors') };
  const [config, weights] = [readFileSync(files.config), readFileSync(files.weights)];
  (await loadAdapter(model, folder)).dispose();
  const handles = model.device.memory.liveHandles - model.device.cachedScalars;
  const random = seededRandom(seed);
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const where = random(3);
    writeFileSync(files.config, where === 0 ? JSON.stringify(damagedJson(JSON.parse(config.toString()), random)) : where === 1 ? damagedBytes(config, random) : config);
    writeFileSync(files.weights, where === 2 ? damagedBytes(weights, random) : weights);
    const begun = performance.now();
    try {
      (await loadAdapter(model, folder)).dispose();
    } catch (error) {
      expect({ round, code: errorCode(error), error: String(error), config: readFileSync(files.config, 'utf8').slice(0, 2000) }).toMatchObject({ code: 'incompatible_artifact' });
      refused++;
    }
    expect([round, performance.now() - begun < 2000, model.device.memory.liveHandles - model.device.cachedScalars]).toEqual([round, true, handles]);
  }
  expect(refused).toBeGreaterThan(ROUNDS / 10);
});
