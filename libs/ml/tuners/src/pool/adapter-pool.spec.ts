/**
 * A pool of adapters on one base. Random sequences of operations are checked against the plain meaning: an active set computes what its adapters compute, in its
 * order, whatever happens to the pool while it is held; in the end nothing is left on the device or on disk.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits, openDevice } from '@tunefleet/ml-tensor';
import { routeHooks } from '../composition/route-hooks';
import { createTuner } from '../registry';
import { parseTunerSpec } from '../spec-registry';
import { largest, logitsWith, maxDifference, startWith } from '../testing';
import type { Tuner } from '../tuner';
import { AdapterPool, type ActiveSet } from './adapter-pool';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const composed = join(libraries, 'tuners', 'fixtures', 'composed');
const KINDS = [
  { kind: 'lora', r: 2, target_modules: 'all-linear' },
  { kind: 'lora', r: 3, use_dora: true },
  { kind: 'ia3' },
  { kind: 'adapter', adapter_length: 3 },
  { kind: 'lora', r: 1, target_modules: ['q_proj', 'lm_head'], use_rslora: true },
];

let model: CausalLm;
let disk: string;
let handles: number;
beforeAll(async () => {
  const folder = join(libraries, 'models', 'fixtures', 'qwen2');
  model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' });
  disk = mkdtempSync(join(tmpdir(), 'adapter-pool-'));
  logits(null);
  logitsWith(model, { ids: new Int32Array(12), rows: 1, columns: 12 });
  handles = held();
});
afterAll(() => {
  model[Symbol.dispose]();
  rmSync(disk, { recursive: true });
});
afterEach(() => {
  expect(held()).toBe(handles);
  expect(readdirSync(disk)).toEqual([]);
});

const held = () => model.device.memory.liveHandles - model.device.cachedScalars;
const ids = Int32Array.from({ length: 10 }, (_, index) => (index * 29 + 7) % 64);

function logits(hook: ModelHook | null, rows = 1): Float32Array {
  const batch = { ids: Int32Array.from({ length: rows * ids.length }, (_, index) => ids[index % ids.length] as number), rows, columns: ids.length };
  return model.device.scope(() => model.device.readFloats(headLogits(model.forward(batch, { adapter: hook }), headOf(model, hook))));
}

interface Made {
  readonly tuner: Tuner;
  readonly values: Float32Array;
}

function make(kind: number, seed: number): Made {
  const tuner = createTuner(parseTunerSpec(KINDS[kind]), model);
  return { tuner, values: tuner.initialValues(seed, startWith(model)).map((value, index) => value + 0.05 * Math.sin(index + seed)) };
}

/** What a set computes in a pool of its own. */
async function alone(parts: readonly (Made & { readonly weight: number })[]): Promise<Float32Array> {
  using pool = new AdapterPool(model, disk);
  parts.forEach(({ tuner, values }, index) => pool.addValues(`p${index}`, tuner, values));
  using active = await pool.activate(parts.map(({ weight }, index) => ({ name: `p${index}`, weight })));
  return logits(active.hook);
}

type Step =
  | { readonly type: 'add'; readonly name: string; readonly kind: number; readonly seed: number }
  | { readonly type: 'remove'; readonly name: string }
  | { readonly type: 'rename'; readonly name: string; readonly to: string }
  | { readonly type: 'offload'; readonly name: string; readonly to: 'host' | 'disk' }
  | { readonly type: 'activate'; readonly names: readonly string[]; readonly weight: number }
  | { readonly type: 'end'; readonly set: number };

/** One the beginning of others. */
const name = fc.constantFrom('a', 'ab', 'ab-c', 'b', 'default');
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ type: fc.constant('add' as const), name, kind: fc.nat(KINDS.length - 1), seed: fc.nat(99) }),
  fc.record({ type: fc.constant('remove' as const), name }),
  fc.record({ type: fc.constant('rename' as const), name, to: name }),
  fc.record({ type: fc.constant('offload' as const), name, to: fc.constantFrom('host' as const, 'disk' as const) }),
  fc.record({ type: fc.constant('activate' as const), names: fc.uniqueArray(name, { maxLength: 3 }), weight: fc.constantFrom(1, 0.5) }),
  fc.record({ type: fc.constant('end' as const), set: fc.nat(3) }),
);

test('any sequence of operations: every active set computes what its adapters do alone, all the time it is held', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 6, maxLength: 14 }), async (steps) => {
      using pool = new AdapterPool(model, disk);
      const known = new Map<string, Made>();
      const sets: { readonly active: ActiveSet; readonly wanted: Float32Array }[] = [];
      for (const each of steps) {
        const attempt = await apply(pool, known, sets, each);
        if (attempt === 'refused') continue;
        expect([...pool.names].sort()).toEqual([...known.keys()].sort());
        for (const { active, wanted } of sets) expect(logits(active.hook)).toEqual(wanted);
      }
      for (const { active } of sets) active[Symbol.dispose]();
    }),
    { numRuns: 30 },
  );
}, 30_000);

async function apply(pool: AdapterPool, known: Map<string, Made>, sets: { readonly active: ActiveSet; readonly wanted: Float32Array }[], each: Step): Promise<'done' | 'refused'> {
  switch (each.type) {
    case 'add': {
      const made = make(each.kind, each.seed);
      if (known.has(each.name)) {
        expect(() => pool.addValues(each.name, made.tuner, made.values)).toThrow(`an adapter named "${each.name}" already`);
        return 'refused';
      }
      pool.addValues(each.name, made.tuner, made.values);
      known.set(each.name, made);
      return 'done';
    }
    case 'remove':
      if (!known.has(each.name)) {
        expect(() => pool.remove(each.name)).toThrow(`no adapter named "${each.name}"`);
        return 'refused';
      }
      pool.remove(each.name);
      known.delete(each.name);
      return 'done';
    case 'rename': {
      const made = known.get(each.name);
      if (!made || (known.has(each.to) && each.to !== each.name)) {
        expect(() => pool.rename(each.name, each.to)).toThrow(/named/);
        return 'refused';
      }
      pool.rename(each.name, each.to);
      known.delete(each.name);
      known.set(each.to, made);
      return 'done';
    }
    case 'offload':
      if (!known.has(each.name)) return 'refused';
      await pool.offload(each.name, each.to);
      // What is on disk stays there until it is needed.
      expect(each.to === 'disk' ? ['disk'] : ['host', 'disk']).toContain(pool.where(each.name));
      return 'done';
    case 'activate': {
      if (each.names.some((one) => !known.has(one))) {
        await expect(pool.activate(each.names)).rejects.toMatchObject({ code: 'not_found' });
        return 'refused';
      }
      const active = await pool.activate(each.names.map((one) => ({ name: one, weight: each.weight })));
      const wanted = await alone(each.names.map((one) => ({ ...(known.get(one) as Made), weight: each.weight })));
      sets.push({ active, wanted });
      return 'done';
    }
    case 'end':
      sets.splice(each.set, 1).forEach(({ active }) => active[Symbol.dispose]());
      return 'done';
  }
}

test('none is the base, bit for bit; a set is its adapters by name, not by what their names begin with', async () => {
  using pool = new AdapterPool(model, disk);
  await pool.addFolder('a', join(composed, 'lora'));
  await pool.addFolder('ab', join(composed, 'ia3'));
  using none = await pool.activate([]);
  expect(none.hook).toBeNull();
  using a = await pool.activate(['a']);
  using ab = await pool.activate(['ab']);
  pool.remove('a');
  expect(pool.names).toEqual(['ab']);
  expect(maxDifference(logits(a.hook), logits(ab.hook))).toBeGreaterThan(1e-2);
  await expect(pool.addFolder('x.y', join(composed, 'lora'))).rejects.toThrow('"x.y" is no name for an adapter');
  await expect(pool.activate(['ab', 'ab'])).rejects.toThrow('"ab" is named twice');
  await expect(pool.activate(['a'])).rejects.toThrow('there is no adapter named "a"; there are ab');
});

test('rows of one pass with sets of their own have the logits of each set alone, whichever passes run in between', async () => {
  using pool = new AdapterPool(model, disk);
  for (const each of ['lora', 'rslora', 'dora', 'ia3', 'adapter']) await pool.addFolder(each, join(composed, each));
  const choices = [['lora', 'rslora'], [], ['dora', 'lora'], ['ia3', 'adapter'], ['rslora', 'ia3']];
  const sets: ActiveSet[] = [];
  for (const each of choices) sets.push(await pool.activate(each));
  const lone = sets.map(({ hook }) => logits(hook));
  const together = model.device.scope(() => logits(routeHooks(model, sets.map(({ hook }) => ({ rows: 1, hook }))), sets.length));
  expect(maxDifference(together, lone.flatMap((each) => [...each]))).toBeLessThan(2e-5);
  expect(sets.map(({ hook }) => logits(hook))).toEqual(lone);
  for (const set of sets) set[Symbol.dispose]();
});

test.each(['swift', 'peft'])('adapters that %s has saved together give the logits they have there', async (library) => {
  const roots = join(libraries, 'tuners', 'fixtures', 'adapter-roots');
  using golden = SafetensorsFile.open(join(roots, `${library}.safetensors`));
  using pool = new AdapterPool(model, disk);
  const names = await pool.addRoot(join(roots, library));
  expect(names).toEqual(library === 'swift' ? ['extra_states', 'a', 'ab'] : ['default', 'other']);
  using active = await pool.activate(names);
  const batch = { ids: new Int32Array(golden.read('ids').buffer), rows: 1, columns: 12 };
  const ours = logitsWith(model, batch, { adapter: active.hook });
  expect(maxDifference(ours, new Float32Array(golden.read('logits').buffer))).toBeLessThan(1e-4);
  for (const name of names) {
    using without = await pool.activate(names.filter((each) => each !== name));
    expect(maxDifference(logitsWith(model, batch, { adapter: without.hook }), ours)).toBeGreaterThan(1e-3);
  }
});

test.each(['lora+rslora', 'dora+lora+ia3', 'biased+ia3b', 'ia3', 'rslora+adapter', 'head+head2'])('merged, %s compute what they do unmerged, and the base is as before', async (set) => {
  const names = set.split('+');
  const base = logits(null);
  using pool = new AdapterPool(model, disk);
  for (const each of names) await pool.addFolder(each, join(composed, each));
  using plain = await pool.activate(names);
  using merged = await pool.activate(names, { merge: true });
  const wanted = logits(plain.hook);
  expect(maxDifference(logits(merged.hook), wanted)).toBeLessThan(1e-5 * largest(wanted));
  merged[Symbol.dispose]();
  expect(logits(plain.hook)).toEqual(wanted);
  plain[Symbol.dispose]();
  expect(logits(null)).toEqual(base);
});

test('values on disk come back bit for bit, and what was damaged there is refused', async () => {
  using pool = new AdapterPool(model, disk);
  await pool.addFolder('a', join(composed, 'dora'));
  await pool.addFolder('b', join(composed, 'head'));
  using first = await pool.activate(['a', 'b']);
  const wanted = logits(first.hook);
  first[Symbol.dispose]();
  const onDevice = held();
  await Promise.all([pool.offload('a', 'disk'), pool.offload('b', 'disk')]);
  expect(held()).toBeLessThan(onDevice);
  expect([pool.where('a'), readdirSync(disk).length]).toEqual(['disk', 2]);
  const [left, right] = await Promise.all([pool.activate(['a', 'b']), pool.activate(['a', 'b'])]);
  expect([logits(left.hook), logits(right.hook)]).toEqual([wanted, wanted]);
  left[Symbol.dispose]();
  right[Symbol.dispose]();
  expect([pool.where('a'), readdirSync(disk)]).toEqual(['device', []]);

  await pool.offload('a', 'disk');
  const path = join(disk, readdirSync(disk)[0] as string);
  const bytes = readFileSync(path);
  truncateSync(path, bytes.length - 4);
  await expect(pool.activate(['a'])).rejects.toMatchObject({ code: 'incompatible_artifact' });
  writeFileSync(path, bytes);
  using again = await pool.activate(['a']);
  expect(again.names).toEqual(['a']);
  expect(existsSync(path)).toBe(false);
});
