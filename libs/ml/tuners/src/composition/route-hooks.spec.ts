/** Adapters of several kinds, each on rows of its own in one pass, against the same rows alone; on every decoder. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { architectureSpecs, loadCausalLm, type CausalLm, type TokenBatch } from '@tunefleet/ml-models';
import type { ModelHook } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, openDevice, type Device, type Tensor } from '@tunefleet/ml-tensor';
import { createTuner } from '../registry';
import { parseTunerSpec } from '../spec-registry';
import { largest, logitsWith, maxDifference, parametersOf, startWith } from '../testing';
import type { DropoutKey } from '../tuner';
import { routeHooks } from './route-hooks';

const NAMES = ['tied', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];
/** Where more than the equality with lone runs is tested: what it depends on is no decoder's own. */
const MORE = ['tied'];
const V = 64;
const columns = 12;
/** Rounding of sums of a few dozen f32 terms. */
const TOLERANCE = 2e-5;

interface Route {
  readonly rows: number;
  readonly fields: object | null;
  readonly columns?: number;
  readonly factor?: number;
}

/** LoRAs of one shape beside each other, one of another shape, changes that are no low-rank updates, and the base between them. */
const ROUTES: readonly Route[] = [
  { rows: 1, fields: { kind: 'lora', r: 2, target_modules: 'all-linear' } },
  { rows: 1, fields: { kind: 'lora', r: 2, target_modules: 'all-linear' }, factor: -1 },
  { rows: 2, fields: { kind: 'lora', r: 2, target_modules: 'all-linear' }, factor: 2 },
  { rows: 1, fields: null },
  { rows: 1, fields: { kind: 'ia3' } },
  { rows: 1, fields: { kind: 'lora', r: 3 } },
  { rows: 1, fields: { kind: 'adapter' } },
  { rows: 1, fields: { kind: 'lora', r: 2, use_dora: true } },
];

let device: Device;
beforeAll(async () => void (device = await openDevice({ backend: 'tensorflow' })));

describe.each(NAMES)('%s', (name) => {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'models', 'fixtures', name);
  let model: CausalLm;
  beforeAll(async () => void (model = await loadCausalLm(device, { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' })));
  afterAll(() => model[Symbol.dispose]());

  /** Tensors of the enclosing scope. */
  function bind({ fields, factor = 1 }: Route, index: number, dropout: DropoutKey = null, base: CausalLm = model): { hook: ModelHook | null; parameters: readonly Tensor[] } {
    if (!fields) return { hook: null, parameters: [] };
    const tuner = createTuner(parseTunerSpec(fields), base);
    const values = tuner.initialValues(index, startWith(base)).map((value, at) => factor * (value + 0.05 * Math.sin(at + index)));
    const parameters = parametersOf(device, tuner, values);
    return { hook: tuner.bind(base, parameters, dropout), parameters };
  }

  const total = (routes: readonly Route[]) => routes.reduce((sum, { rows }) => sum + rows, 0);
  const firstRows = (routes: readonly Route[]) => routes.map((_, index) => total(routes.slice(0, index)));
  const batchOf = (rows: number): TokenBatch => ({ ids: Int32Array.from({ length: rows * columns }, (_, index) => (index * 29 + 7) % V), rows, columns });
  const part = ({ ids }: TokenBatch, first: number, { rows, columns: width = columns }: Route): TokenBatch => ({
    ids: Int32Array.from({ length: rows * width }, (_, at) => ids[(first + Math.floor(at / width)) * columns + (at % width)] as number),
    rows,
    columns: width,
  });

  test('every route has the logits that it has alone, the base among them; all rows or the wanted ones', () => {
    const batch = batchOf(total(ROUTES));
    const begins = firstRows(ROUTES);
    const wanted = Int32Array.from([3, 11, 13, 26, 47, 50, 66, 73, 74, 75, 90, 107]);
    logitsWith(model, batch);
    for (const route of ROUTES) logitsWith(model, part(batch, 0, route));
    const before = device.memory.liveHandles - device.cachedScalars;
    device.scope(() => {
      const hooks = ROUTES.map((route, index) => bind(route, index).hook);
      const adapter = routeHooks(model, ROUTES.map(({ rows }, index) => ({ rows, hook: hooks[index] ?? null })));
      const together = logitsWith(model, batch, { adapter });
      const alone = ROUTES.flatMap((route, index) => [...logitsWith(model, part(batch, begins[index] as number, route), { adapter: hooks[index] ?? null })]);
      expect(maxDifference(together, alone)).toBeLessThan(TOLERANCE);
      expect(maxDifference(together, logitsWith(model, batch))).toBeGreaterThan(1e-3);
      const some = logitsWith(model, batch, { adapter, outputRows: wanted });
      wanted.forEach((row, at) => expect(maxDifference(some.subarray(at * V, (at + 1) * V), alone.slice(row * V, (row + 1) * V))).toBeLessThan(TOLERANCE));
    });
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  });

  interface LearnOptions {
    readonly recomputeBlocks?: boolean;
    readonly dropout?: DropoutKey;
    /** Default: all. */
    readonly learning?: readonly number[];
  }
  type Bound = { readonly hook: ModelHook | null; readonly parameters: readonly Tensor[] };

  /** Gradients by the sum of the losses at some tokens of the batch. */
  function pass(batch: TokenBatch, adapter: ModelHook | null, learns: (row: number, column: number) => boolean, { parameters }: Pick<Bound, 'parameters'>, recomputeBlocks = false): Float32Array[] {
    const outputRows = Int32Array.from([...batch.ids.keys()].filter((at) => learns(Math.floor(at / batch.columns), at % batch.columns)));
    const labels = Int32Array.from(outputRows, (at) => ((batch.ids[at] as number) * 5 + 3) % V);
    const { gradients: got } = gradients(device, parameters, () => headCrossEntropy(model.forward(batch, { adapter, outputRows, recomputeBlocks }), model.head, labels, { scale: 0.1 }));
    return got.map((gradient) => (gradient ? device.readFloats(gradient) : new Float32Array()));
  }
  const learned = ({ columns: width = columns }: Route, column: number): boolean => column < width - 1 && column % 4 !== 2;

  /** Of every route's parameters, each route in a pass of its own. */
  const learnAlone = (routes: readonly Route[], { recomputeBlocks, dropout = null }: LearnOptions): Float32Array[][] =>
    device.scope(() => routes.map((route, index) => {
      const bound = bind(route, index, dropout);
      return pass(part(batchOf(total(routes)), firstRows(routes)[index] as number, route), bound.hook, (_, column) => learned(route, column), bound, recomputeBlocks);
    }));

  const learnTogether = (routes: readonly Route[], { learning = [...routes.keys()], recomputeBlocks, dropout = null }: LearnOptions): Float32Array[][] =>
    device.scope(() => {
      const bound = routes.map((route, index) => bind(route, index, dropout));
      const adapter = routeHooks(model, routes.map(({ rows, columns: width = columns }, index) => ({ rows, hook: bound[index]?.hook ?? null, columns: width })));
      const begins = firstRows(routes);
      const learns = (row: number, column: number): boolean => {
        const route = begins.findLastIndex((begin) => begin <= row);
        return learning.includes(route) && learned(routes[route] as Route, column);
      };
      const all = pass(batchOf(total(routes)), adapter, learns, { parameters: bound.flatMap(({ parameters }) => parameters) }, recomputeBlocks).values();
      return bound.map(({ parameters }) => parameters.map(() => all.next().value as Float32Array));
    });

  function expectNear(got: readonly Float32Array[][], wanted: readonly Float32Array[][]): void {
    const most = Math.max(...wanted.flat().map(largest));
    expect(most).toBeGreaterThan(1e-3);
    got.forEach((parts, route) => parts.forEach((gradient, index) => expect(maxDifference(gradient, wanted[route]?.[index] ?? [])).toBeLessThan(TOLERANCE * Math.max(1, most))));
  }

  test('every route has the gradients that it has alone', () => {
    expectNear(learnTogether(ROUTES, {}), learnAlone(ROUTES, {}));
  });
  if (!MORE.includes(name)) return;

  test('in bf16 every route stays near what it is alone', async () => {
    using narrow = await loadCausalLm(device, { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'bf16' });
    const routes = ROUTES.slice(0, 4);
    const [batch, begins] = [batchOf(total(routes)), firstRows(routes)];
    device.scope(() => {
      const hooks = routes.map((route, index) => bind(route, index, null, narrow).hook);
      const together = logitsWith(narrow, batch, { adapter: routeHooks(narrow, routes.map(({ rows }, index) => ({ rows, hook: hooks[index] ?? null }))) });
      routes.forEach((route, index) => {
        const from = (begins[index] as number) * columns * V;
        const own = together.subarray(from, from + route.rows * columns * V);
        expect(maxDifference(own, logitsWith(narrow, part(batch, begins[index] as number, route), { adapter: hooks[index] ?? null }))).toBeLessThan(0.1);
      });
    });
  });

  test('blocks are computed again for the same gradients', () => {
    expect(learnTogether(ROUTES, { recomputeBlocks: true })).toEqual(learnTogether(ROUTES, {}));
  });

  test('what does not learn gets no gradient at all', () => {
    learnTogether(ROUTES, { learning: [1, 5] }).forEach((parts, route) => {
      const most = Math.max(0, ...parts.map(largest));
      if (route === 1 || route === 5) expect(most).toBeGreaterThan(1e-4);
      else expect(most).toBe(0);
    });
  });

  test('with padding behind its rows a route drops the same elements as alone', () => {
    const routes: readonly Route[] = [
      { rows: 2, fields: { kind: 'lora', r: 2, lora_dropout: 0.5 }, columns: 8 },
      { rows: 1, fields: { kind: 'adapter' } },
      { rows: 1, fields: { kind: 'lora', r: 2 }, columns: 8 },
    ];
    expectNear(learnTogether(routes, { dropout: [7, 3] }), learnAlone(routes, { dropout: [7, 3] }));
  });

  test('what is not finite stays where it is', () => {
    const harmed = learnTogether(ROUTES.map((route, index) => (index === 1 ? { ...route, factor: NaN } : route)), {});
    const plain = learnTogether(ROUTES, {});
    harmed.forEach((parts, route) => parts.forEach((gradient, index) => (route === 1 ? expect(gradient.every(Number.isNaN)).toBe(true) : expect(gradient).toEqual(plain[route]?.[index]))));
  });

  test('an adapter that changes what all rows share is refused', () => {
    device.scope(() => {
      const { hook } = bind({ rows: 1, fields: { kind: 'prefix-tuning', num_virtual_tokens: 2 } }, 0);
      expect(() => routeHooks(model, [{ rows: 1, hook }, { rows: 1, hook: null }])).toThrow(expect.objectContaining({ reason: 'not_routable' }));
      expect(() => logitsWith(model, batchOf(2), { adapter: routeHooks(model, [{ rows: 1, hook: null }]) })).toThrow('routes of 1 rows met a batch of 2');
    });
  });
});
