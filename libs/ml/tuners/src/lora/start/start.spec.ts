/** Decompositions against their definitions; starts from weights against PEFT (fixtures of `tools/golden/lora_starts_fixture.py`). */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fillNormal } from '@tunefleet/foundation';
import { frozenMatrix, openDevice } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec } from '../..';
import { startWith } from '../../testing';
import { fixture, GoldenRun, largest, maxDifference, openBase, parametersOf, PlainAdamW } from '../golden-run';
import { sizeOf, type LoraParameter } from '../parameters';
import { leadingQr, randomOrthonormal } from './orthogonal';
import { approximateSingular, largestSingular, type SingularPart } from './singular';
import { symmetricEigen } from './symmetric-eigen';

const random = (rows: number, columns: number, seed = 3): Float32Array[] => {
  const all = new Float32Array(rows * columns);
  fillNormal(all, 1, seed, 0);
  return Array.from({ length: rows }, (_, row) => all.subarray(row * columns, (row + 1) * columns));
};
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((sum, value, i) => sum + value * (b[i] ?? NaN), 0);

test.each([1, 2, 7, 40])('eigenvectors of a symmetric matrix of %i', (n) => {
  const half = random(n, n);
  const symmetric = half.map((row, i) => Float64Array.from(row, (value, j) => value + (half[j]?.[i] ?? NaN)));
  const vectors = symmetric.map((row) => row.slice());
  const values = symmetricEigen(vectors);
  vectors.forEach((vector, k) => {
    expect(maxDifference(symmetric.map((row) => dot(row, vector)), vector.map((x) => x * (values[k] ?? NaN)))).toBeLessThan(1e-11 * n);
    vectors.forEach((other, l) => expect(Math.abs(dot(vector, other) - (k === l ? 1 : 0))).toBeLessThan(1e-12 * n));
  });
});

const checkSingular = (rows: readonly Float32Array[], { values, left, right }: SingularPart, tolerance: number): void => {
  values.forEach((value, k) => {
    expect(maxDifference(rows.map((row) => dot(row, right[k] ?? [])), (left[k] ?? new Float64Array()).map((x) => x * value))).toBeLessThan(tolerance);
    expect(Math.abs(dot(right[k] ?? [], right[k] ?? []) - 1)).toBeLessThan(tolerance);
    expect(value).toBeLessThanOrEqual(values[k - 1] ?? Infinity);
  });
};

test.each([[30, 12], [12, 30], [9, 9]])('largest singular values of [%i, %i]', (outSize, inSize) => {
  const rows = random(outSize, inSize);
  const all = largestSingular(rows, 9);
  checkSingular(rows, all, 1e-9);
  expect(largestSingular(rows, 3).values).toEqual(all.values.slice(0, 3));
  if (all.values.length === inSize) expect(Math.abs(dot(all.values, all.values) - rows.reduce((sum, row) => sum + dot(row, row), 0))).toBeLessThan(1e-8);
});

test.each(['tensorflow', 'wasm'] as const)('singular values by random directions on %s', async (backend) => {
  const device = await openDevice({ backend });
  const rows = random(60, 40);
  const weight = frozenMatrix(device, device.tensor(Float32Array.from(rows.flatMap((row) => [...row])), [60, 40], 'f32'));
  const exact = largestSingular(rows, 4);
  const found = approximateSingular(weight, 4, 16);
  checkSingular(rows, found, 0.05);
  expect(maxDifference(found.values, exact.values)).toBeLessThan(1e-2);
  expect(approximateSingular(weight, 4, 16)).toEqual(found);
  weight.value.dispose();
});

test('leading columns of Q, rows of R; random orthonormal vectors', () => {
  const rows = random(8, 5);
  const { q, r } = leadingQr(rows, 5);
  rows.forEach((row, i) => row.forEach((value, j) => expect(q.reduce((sum, column, k) => sum + (column[i] ?? NaN) * (r[k]?.[j] ?? NaN), 0)).toBeCloseTo(value, 6)));
  const vectors = randomOrthonormal(4, 6, 1, 2);
  vectors.forEach((vector, k) => vectors.forEach((other, l) => expect(dot(vector, other)).toBeCloseTo(k === l ? 1 : 0, 10)));
});

describe.each(['pissa', 'olora'] as const)('%s', (init) => {
  const golden = new GoldenRun(`peft-${init}`);
  const fields = { kind: 'lora', r: 4, lora_alpha: 6, target_modules: ['q_proj', 'v_proj', 'down_proj'], rank_pattern: { v_proj: 2 }, init_lora_weights: init };
  let work = '';
  beforeAll(async () => {
    work = await mkdtemp(join(tmpdir(), 'lora-start-'));
  });
  afterAll(() => rm(work, { recursive: true, force: true }));

  test.each(['tensorflow', 'wasm'] as const)('start, logits, gradients, ten steps and the folder are those of PEFT on %s', async (backend) => {
    using model = await openBase('tied', backend);
    const tuner = createTuner(parseTunerSpec(fields), model);
    const parameters = tuner.parameters as readonly LoraParameter[];
    const fresh = tuner.initialValues(5, startWith(model));
    const signs = signsBetween(golden, parameters, fresh);
    const ours = (prefix: string) => aligned(golden, prefix, parameters, signs);
    expect(maxDifference(fresh, ours('start.'))).toBeLessThan(2e-5);
    model.device.scope(() => {
      const hook = tuner.bind(model, parametersOf(model, tuner, fresh), null);
      expect(maxDifference(golden.logits(model, { adapter: hook }), golden.logits(model))).toBe(0);
    });
    const values = Float32Array.from(ours('adapter.'));
    await tuner.save(values, join(work, backend), { id: 'tiny/tied', revision: 'local' }, model);
    for (const folder of [join(work, backend), fixture(`peft-${init}`)]) {
      const adapter = await loadAdapter(model, folder);
      expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(2e-4);
      adapter.dispose();
    }
    const configs = await Promise.all([join(work, backend), fixture(`peft-${init}`)].map(async (folder) => JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as Record<string, unknown>));
    for (const field of ['r', 'lora_alpha', 'rank_pattern', 'alpha_pattern', 'init_lora_weights']) expect([field, configs[0]?.[field]]).toEqual([field, configs[1]?.[field]]);

    const wanted = ours('grad.');
    for (const recomputeBlocks of [false, true]) {
      const { loss, gradients } = golden.step(model, tuner, values, { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(2e-5);
      expect(maxDifference(gradients.flatMap((gradient) => [...gradient]), wanted)).toBeLessThan(2e-5 + 2e-4 * largest(wanted));
    }
    const optimiser = new PlainAdamW(values, new Float32Array(values.length).fill(golden.learningRate), new Float32Array(values.length).fill(golden.weightDecay));
    const losses = Array.from({ length: 10 }, () => {
      const { loss, gradients } = golden.step(model, tuner, values);
      optimiser.step(Float32Array.from(gradients.flatMap((gradient) => [...gradient])));
      return loss;
    });
    expect(maxDifference(losses, golden.floats('losses'))).toBeLessThan(1e-3);
    expect(maxDifference(values, ours('end.'))).toBeLessThan(2e-3);
  });

  test('another instance goes on with the same bits: the start follows from the weights', async () => {
    using model = await openBase('tied', 'tensorflow');
    const spec = parseTunerSpec({ ...fields, lora_dropout: 0.2 });
    const values = createTuner(spec, model).initialValues(1, startWith(model)).map((value, i) => value + 0.01 * Math.sin(i));
    const step = () => golden.step(model, createTuner(spec, model), values, { dropout: [4, 2] });
    expect(step()).toEqual(step());
  });

  test('bf16 begins at the base and stays near PEFT in f32', async () => {
    using model = await openBase('tied', 'tensorflow', 'bf16');
    const tuner = createTuner(parseTunerSpec(fields), model);
    const fresh = tuner.initialValues(5, startWith(model));
    model.device.scope(() => {
      const hook = tuner.bind(model, parametersOf(model, tuner, fresh), null);
      expect(maxDifference(golden.logits(model, { adapter: hook }), golden.logits(model))).toBe(0);
    });
    const parameters = tuner.parameters as readonly LoraParameter[];
    const wanted = aligned(golden, 'grad.', parameters, signsBetween(golden, parameters, fresh));
    const { gradients } = golden.step(model, tuner, Float32Array.from(aligned(golden, 'adapter.', parameters, signsBetween(golden, parameters, fresh))));
    expect(maxDifference(gradients.flatMap((gradient) => [...gradient]), wanted)).toBeLessThan(0.25 * largest(wanted));
  });
});

/** Singular vectors have no sign of their own: per parameter and component, that of ours against PEFT's. */
function signsBetween(golden: GoldenRun, parameters: readonly LoraParameter[], fresh: Float32Array): number[][] {
  let at = 0;
  return parameters.map((parameter) => {
    const theirs = golden.ofParameter('start.', parameter);
    const ours = fresh.subarray(at, (at += sizeOf(parameter)));
    const [rank = 0, size = 0] = parameter.shape;
    return Array.from({ length: rank }, (_, k) => Math.sign(dot(ours.subarray(k * size, (k + 1) * size), theirs.subarray(k * size, (k + 1) * size))));
  });
}

function aligned(golden: GoldenRun, prefix: string, parameters: readonly LoraParameter[], signs: readonly (readonly number[])[]): Float32Array {
  return Float32Array.from(parameters.flatMap((parameter, index) => [...golden.ofParameter(prefix, parameter)].map((value, i) => value * (signs[index]?.[Math.floor(i / (parameter.shape[1] ?? 1))] ?? NaN))));
}
