/** Weighted combinations against PEFT's `add_weighted_adapter` (fixture of `tools/golden/combined_fixture.py`). */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile, readAdapterFiles } from '@tunefleet/ml-formats';
import { describeCausalLm } from '@tunefleet/ml-models/specs';
import { loraFactorsOf } from '../lora/factors';
import { maxDifference } from '../testing';
import type { BaseOnDisk } from '../weight-changes';
import { combineLoras, type Combination, type CombinedLora, type WeightedLora } from './combine';
import { truncatedProduct } from './low-rank-svd';
import { dropAndRescale } from './sparsify';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const folder = join(libraries, 'tuners', 'fixtures', 'combined');
const description = describeCausalLm(JSON.parse(readFileSync(join(libraries, 'models', 'fixtures', 'qwen2', 'config.json'), 'utf8')));
const base: BaseOnDisk = { ...description, table: () => new Float32Array() };
const read = async (name: string, weight: number): Promise<WeightedLora> => ({ name, weight, targets: loraFactorsOf(base, await readAdapterFiles(join(folder, name)), 'be combined') });
const both = async () => [await read('a', 0.7), await read('b', -0.4)];
const options = (combination: Combination) => ({ combination, density: null, rank: null, seed: 1 });

test.each([
  ['cat', null, null],
  ['linear', null, null],
  ['svd', null, 4],
  ['ties', 0.4, null],
  ['magnitude_prune', 0.3, null],
] as const)('%s is that of PEFT', async (combination, density, rank) => {
  const result = combineLoras(await both(), { combination, density, rank, seed: 1 });
  using golden = SafetensorsFile.open(join(folder, 'golden.safetensors'));
  const floats = (name: string) => new Float32Array(golden.read(`${combination}.${name}`).slice().buffer);
  expect(result.targets).toHaveLength(4);
  expect(golden.tensors.get(`${combination}.${result.targets[0]?.path}.lora_A.weight`)?.shape[0]).toBe(result.rank);
  for (const { path, a, b, inSize } of result.targets) {
    const [wantedA, wantedB] = [floats(`${path}.lora_A.weight`), floats(`${path}.lora_B.weight`)];
    if (combination !== 'svd') expect(Math.max(maxDifference(a, wantedA), maxDifference(b, wantedB))).toBeLessThan(1e-6);
    // Singular vectors have no sign of their own.
    const wanted = product(wantedA, wantedB, result.rank, inSize);
    expect(maxDifference(product(a, b, result.rank, inSize), wanted)).toBeLessThan(1e-6);
    expect(Math.max(...wanted.map(Math.abs))).toBeGreaterThan(1e-2);
  }
});

test('DARE keeps a share, divided by it, the same for the same seed', async () => {
  const loras = await both();
  const dare = (combination: Combination, density: number, seed: number) => flat(combineLoras(loras, { combination, density, rank: null, seed }));
  expect(dare('dare_linear', 1, 1)).toEqual(flat(combineLoras(loras, options('linear'))));
  expect(dare('dare_ties', 1, 1)).toEqual(flat(combineLoras(loras, { ...options('ties'), density: 1 })));
  expect(dare('dare_linear', 0.5, 3)).toEqual(dare('dare_linear', 0.5, 3));
  expect(dare('dare_linear', 0.5, 3)).not.toEqual(dare('dare_linear', 0.5, 4));
  const ones = dropAndRescale(new Float32Array(20_000).fill(1), 0.25, [9, 2]);
  expect(new Set(ones)).toEqual(new Set([0, 4]));
  expect(Math.abs(ones.reduce((sum, value) => sum + value, 0) / ones.length - 1)).toBeLessThan(0.05);
});

test('a product is kept whole at its own rank, and dependent factors do no harm', () => {
  const a = Float32Array.from({ length: 3 * 7 }, (_, i) => Math.sin(i * 1.3));
  a.copyWithin(7, 0, 7);
  const b = Float32Array.from({ length: 5 * 3 }, (_, i) => Math.cos(i * 0.7));
  const { a: vt, b: us } = truncatedProduct({ a, b }, 3, 4);
  expect(maxDifference(product(vt, us, 4, 7), product(a, b, 3, 7))).toBeLessThan(1e-6);
  expect([...vt.subarray(2 * 7)].every((value) => Number.isFinite(value))).toBe(true);
});

test('what cannot be combined is refused', async () => {
  const [a, b] = (await both()) as [WeightedLora, WeightedLora];
  const narrow = { ...b, targets: b.targets.map((target) => ({ ...target, rank: 2 })) };
  expect(() => combineLoras([a], options('cat'))).toThrow(/1 adapters were given/);
  expect(() => combineLoras([a, narrow], options('linear'))).toThrow(/has rank 3 in a and 2 in b; use cat or svd/);
  expect(() => combineLoras([a, b], options('ties'))).toThrow(/ties needs a density above 0 and up to 1, got none/);
  expect(() => combineLoras([a, b], { ...options('cat'), density: 0.5 })).toThrow(/cat takes no density/);
  expect(() => combineLoras([a, { ...b, weight: NaN }], options('cat'))).toThrow(/weight of b is NaN/);
});

/** B A, [out, in] */
function product(a: Float32Array, b: Float32Array, rank: number, inSize: number): Float32Array {
  return Float32Array.from({ length: (b.length / rank) * inSize }, (_, index) => {
    const [row, column] = [Math.floor(index / inSize), index % inSize];
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += (b[row * rank + r] as number) * (a[r * inSize + column] as number);
    return sum;
  });
}

function flat({ targets }: CombinedLora): number[] {
  return targets.flatMap(({ a, b }) => [...a, ...b]);
}
