/** One model for several borrowers; tiny models in folders. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { ModelResolver } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { writeTinyModel } from '@tunefleet/testing';
import { EngineResources, type LoadContext, type ModelChoice } from './engine-resources';

jest.setTimeout(60_000);

let folder: string;
let engine: EngineResources;
let said: string[];
const events: LoadContext['events'] = { log: (_level, message) => void said.push(message), progress: () => undefined, model: () => undefined };
const loads = (): number => said.filter((message) => message.startsWith('loaded ')).length;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tunefleet-resources-'));
  await writeTinyModel(join(folder, 'model'));
  await writeTinyModel(join(folder, 'other'), { seed: 2 });
  const resolver = new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: 'http://127.0.0.1:9', order: [], localRoots: [folder], mirror: { python: 'none' }, catalogue: [] });
  engine = new EngineResources({ device: await openDevice({ backend: 'tensorflow' }), resolver, tokenCacheDirectory: null });
});
afterAll(() => {
  engine.close();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  engine.close();
  said = [];
});

async function baseOf(name: 'model' | 'other'): Promise<ModelChoice> {
  const { id, revision } = await engine.resolver.describe(join(folder, name));
  return { id, revision };
}

test('who asks while it is loaded gets the same model, loaded once', async () => {
  const base = await baseOf('model');
  const [first, second] = await Promise.all([engine.openModel(base, 'f32', { events }), engine.openModel(base, 'f32', { events })]);
  expect(second.model).toBe(first.model);
  expect(loads()).toBe(1);
  first[Symbol.dispose]();
  // Given back twice counts once.
  first[Symbol.dispose]();
  await expect(engine.openModel(await baseOf('other'), 'f32', { events })).rejects.toMatchObject({ code: 'unavailable', reason: 'other_model_in_use' });
  second[Symbol.dispose]();
  using other = await engine.openModel(await baseOf('other'), 'f32', { events });
  expect(other.model).not.toBe(first.model);
});

test('who waits hears how far the load is, for as long as it waits', async () => {
  const base = await baseOf('model');
  const [phases, waiting]: [string[], string[]] = [[], []];
  const hears = (heard: string[]): LoadContext => ({ events: { log: () => undefined, progress: ({ phase }) => void heard.push(phase), model: () => undefined } });
  const stopped = new AbortController();
  const first = engine.openModel(base, 'f32', hears(phases));
  const second = engine.openModel(base, 'f32', hears(waiting));
  const third = engine.openModel(base, 'f32', { ...hears(waiting), signal: stopped.signal }).catch(() => null);
  stopped.abort();
  await third;
  using _first = await first;
  using _second = await second;
  expect(phases).toEqual([expect.stringMatching(/^load \d+ %$/)]);
  expect(waiting).toEqual(phases);
});

test('who is stopped while another loads ends at once; who waits for a load that fails makes its own', async () => {
  const base = await baseOf('model');
  const [failing, stopped] = [new AbortController(), new AbortController()];
  const ends: string[] = [];
  const first = engine.openModel(base, 'f32', { events, signal: failing.signal }).catch(() => ends.push('first'));
  const second = engine.openModel(base, 'f32', { events, signal: stopped.signal }).catch((error: { code: string }) => ends.push(`second ${error.code}`));
  const third = engine.openModel(base, 'f32', { events });
  stopped.abort();
  failing.abort();
  await Promise.all([first, second]);
  expect(ends).toEqual(['second cancelled', 'first']);
  using opened = await third;
  expect([opened.base, loads()]).toEqual([base, 1]);
});
