/** Every kind of tuner in one pass: rows with two adapters of the kind, rows with both at once, and rows with none, against the same rows alone. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { conformance } from '../conformance/conformance';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { createTuner } from '../registry';
import { parseTunerSpec, tunerSpecs, type TunerKind } from '../spec-registry';
import { logitsWith, maxDifference, startWith } from '../testing';
import { composeHooks } from './compose-hooks';
import { routeHooks } from './route-hooks';

const kinds = Object.keys(tunerSpecs) as TunerKind[];
const mixable = kinds.filter((kind) => !('no' in conformance[kind]['mixed batch']));
const columns = 10;

let model: CausalLm;
const adapters: LoadedAdapter[] = [];
beforeAll(async () => {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'models', 'fixtures', 'tied');
  const precision = { computeDtype: 'f32', weightDtype: 'f32' } as const;
  model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), ...precision });
});
afterAll(() => {
  for (const adapter of adapters) adapter.dispose();
  model[Symbol.dispose]();
});

function opened(kind: TunerKind, seed: number) {
  const tuner = createTuner(parseTunerSpec({ kind }), model);
  const adapter = openAdapter(model, tuner, tuner.initialValues(seed, startWith(model)).map((value, index) => value + 0.05 * Math.sin(index + seed)));
  adapters.push(adapter);
  return adapter.hook;
}

const batchOf = (rows: readonly number[]) => ({ ids: Int32Array.from(rows.flatMap((row) => Array.from({ length: columns }, (_, column) => (row * 17 + column * 29 + 7) % 64))), rows: rows.length, columns });

test.each(mixable)('rows of %s with adapters of their own give what they give alone', (kind) => {
  const [one, other] = [opened(kind, 1), opened(kind, 2)];
  const together = model.device.scope(() => logitsWith(model, batchOf([0, 1, 2, 3]), { adapter: routeHooks(model, [one, null, other, one].map((hook) => ({ rows: 1, hook }))) }));
  const alone = [one, null, other, one].flatMap((hook, row) => [...logitsWith(model, batchOf([row]), { adapter: hook })]);
  expect(maxDifference(together, alone)).toBeLessThan(2e-5);
  expect(maxDifference(together, logitsWith(model, batchOf([0, 1, 2, 3])))).toBeGreaterThan(1e-3);
  expect(maxDifference(logitsWith(model, batchOf([0]), { adapter: one }), logitsWith(model, batchOf([0]), { adapter: other }))).toBeGreaterThan(1e-4);
});

test.each(mixable.filter((kind) => kind !== 'restuning-bypass'))('rows of two adapters of %s at once, among others', (kind) => {
  const [one, other] = [opened(kind, 1), opened(kind, 2)];
  using both = composeHooks(model, [one, other].map((hook, index) => ({ name: `${index}`, hook, weight: 1 })));
  const hooks = [both.hook, one, null];
  const together = model.device.scope(() => logitsWith(model, batchOf([0, 1, 2]), { adapter: routeHooks(model, hooks.map((hook) => ({ rows: 1, hook }))) }));
  expect(maxDifference(together, hooks.flatMap((hook, row) => [...logitsWith(model, batchOf([row]), { adapter: hook })]))).toBeLessThan(2e-5);
});

test.each(kinds.filter((kind) => !mixable.includes(kind)))('%s says why not', (kind) => {
  expect(() => routeHooks(model, [{ rows: 1, hook: opened(kind, 1) }, { rows: 1, hook: null }])).toThrow(/(puts virtual tokens before the text|changes the output head) cannot share a pass/);
});
