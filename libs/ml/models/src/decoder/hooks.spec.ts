/** What a `ModelHook` can change, on every decoder: each part is held against a forward pass that needs no hook. */
import type { ModelHook, ModuleHook, PrefixHook } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, mul, openDevice, scale, type Device, type Tensor } from '@tunefleet/ml-tensor';
import { architectureSpecs, describeCausalLm } from '../architecture-specs';
import type { CausalLm } from '../causal-lm';
import { goldenModel, loadGolden, logitsOf, maxDifference } from '../testing';

const NAMES = ['tied', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];
const [V, virtual, columns] = [64, 5, 24];
const own = columns - virtual;

describe.each(NAMES)('%s', (name) => {
  const golden = goldenModel(name);
  const ids = golden.ids.slice(0, columns);
  const rest = ids.slice(virtual);
  let device: Device;
  let model: CausalLm;
  let whole: Float32Array;
  beforeAll(async () => {
    device = await openDevice({ backend: 'tensorflow' });
    model = await loadGolden(device, golden);
    whole = logitsOf(model, { ids, rows: 1, columns });
  });
  afterAll(() => model[Symbol.dispose]());

  /** A prefix that stands for the first tokens of the text. */
  const asPrompt = (): PrefixHook => ({ length: virtual, keysValues: (lent) => lent.ofPrompt(firstEmbeddings(model, ids)) });
  const asLayerInputs = (): PrefixHook => ({
    length: virtual,
    keysValues: (lent) => {
      const states = model.stems({ ids: ids.slice(0, virtual), rows: 1, columns: virtual }, everyState(model));
      return lent.ofLayerInputs(new Map(states.slice(0, -1).map((input, layer) => [layer, input as Tensor])));
    },
  });
  const asFirstLayerInput = (): PrefixHook => ({
    length: virtual,
    keysValues: (lent) => lent.ofLayerInputs(new Map([[0, model.stems({ ids: ids.slice(0, virtual), rows: 1, columns: virtual }, [0])[0] as Tensor]])),
  });

  test.each([
    ['embeddings', asPrompt],
    ['inputs of every layer', asLayerInputs],
    ['input of the first layer', asFirstLayerInput],
  ])('virtual tokens given as %s stand for real ones', (_how, prefix) => {
    const adapter = { prefix: prefix() };
    expect(maxDifference(logitsOf(model, { ids: rest, rows: 1, columns: own }, { adapter }), whole.subarray(virtual * V))).toBeLessThan(2e-5);
    using cache = model.openCache(1);
    for (const [from, to] of [[0, 7], [7, 8], [8, own]] as const) {
      const got = logitsOf(model, { ids: rest.slice(from, to), rows: 1, columns: to - from }, { adapter, cache });
      expect(maxDifference(got, whole.subarray((virtual + from) * V, (virtual + to) * V))).toBeLessThan(2e-5);
    }
  });

  test('every example of a packed or shared row, and every row, has the virtual tokens before it', () => {
    const adapter = { prefix: asPrompt() };
    const first = 8;
    const packed = Int32Array.of(...rest, ...rest.slice(0, first));
    const segments = Int32Array.from(packed, (_, i) => (i < own ? 1 : 2));
    const positions = Int32Array.from(packed, (_, i) => (i < own ? i : i - own));
    for (const layout of [{ segments }, { branches: segments }]) {
      const got = logitsOf(model, { ids: packed, rows: 1, columns: packed.length, positions, ...layout }, { adapter });
      expect(maxDifference(got.subarray(0, own * V), whole.subarray(virtual * V))).toBeLessThan(2e-5);
      expect(maxDifference(got.subarray(own * V), whole.subarray(virtual * V, (virtual + first) * V))).toBeLessThan(2e-5);
    }
    const twice = logitsOf(model, { ids: Int32Array.of(...rest, ...rest), rows: 2, columns: own }, { adapter });
    expect(maxDifference(twice.subarray(own * V), whole.subarray(virtual * V))).toBeLessThan(2e-5);
  });

  test('the last positions are still the last', () => {
    const long = model.maxPositions;
    expect(() => model.forward({ ids: new Int32Array(long), rows: 1, columns: long }, { adapter: { prefix: asPrompt() } })).toThrow(`a sequence of ${long + virtual} tokens is longer`);
  });

  test('modules are called in the order of the list, with what they map from and to; a hook that returns its output changes nothing', () => {
    const called: string[] = [];
    const sites = new Map(model.modules.map((site) => [site.path, site]));
    const modules = new Map<string, ModuleHook>(
      model.modules.map(({ path }) => [
        path,
        (output, input) => {
          called.push(path);
          expect([input.dim(1), output.dim(1)]).toEqual([sites.get(path)?.inSize, sites.get(path)?.outSize]);
          expect(input.dim(0)).toBe(output.dim(0));
          return scale(output, 1);
        },
      ]),
    );
    const outputRows = Int32Array.of(3, 4, 23);
    const got = logitsOf(model, { ids, rows: 1, columns }, { adapter: { modules }, outputRows });
    expect(called).toEqual(model.modules.map(({ path }) => path));
    expect(model.modules).toEqual(describeCausalLm(golden.config).modules);
    outputRows.forEach((row, i) => expect(maxDifference(got.subarray(i * V, (i + 1) * V), whole.subarray(row * V, (row + 1) * V))).toBeLessThan(2e-5));
  });

  test('gradients reach what hooks hold: modules, embeddings and virtual tokens, also of recomputed blocks', () => {
    const prompt = Float32Array.from({ length: virtual * model.hiddenSize }, (_, i) => Math.sin(i));
    const run = (gain: number, prompts: Float32Array, recomputeBlocks: boolean) =>
      device.scope(() => {
        const parameters = [device.tensor(Float32Array.of(gain), [], 'f32'), device.tensor(prompts.slice(), [virtual, model.hiddenSize], 'f32')] as const;
        const gained: ModuleHook = (output) => mul(output, parameters[0]);
        const adapter: ModelHook = {
          modules: new Map(model.modules.map(({ path }) => [path, gained])),
          embed: (embedded) => mul(embedded, parameters[0]),
          prefix: { length: virtual, keysValues: (lent) => lent.ofPrompt(parameters[1]) },
        };
        const labels = Int32Array.from(rest, (_, i) => rest[i + 1] ?? -100);
        const { result, gradients: got } = gradients(device, parameters, () => headCrossEntropy(model.forward({ ids: rest, rows: 1, columns: own }, { adapter, recomputeBlocks }), model.head, labels, { scale: 1 / own }));
        return { loss: device.readFloats(result.loss)[0] ?? NaN, gain: device.readFloats(got[0] as Tensor)[0] ?? NaN, prompt: device.readFloats(got[1] as Tensor) };
      });
    const handles = () => device.memory.liveHandles - device.cachedScalars;
    const kept = run(1, prompt, false);
    const before = handles();
    const again = run(1, prompt, true);
    expect(handles()).toBe(before);
    expect(maxDifference(again.prompt, kept.prompt)).toBeLessThan(1e-6);
    expect(Math.abs(again.gain - kept.gain)).toBeLessThan(1e-4 * Math.max(1, Math.abs(kept.gain)));
    const step = 2e-3;
    const slope = (run(1 + step, prompt, false).loss - run(1 - step, prompt, false).loss) / (2 * step);
    expect(Math.abs(slope - kept.gain)).toBeLessThan(0.03 * Math.max(0.1, Math.abs(slope)));
    // Along the gradient itself, where the difference quotient has something to measure.
    const norm = Math.hypot(...kept.prompt);
    const moved = (by: number) => run(1, prompt.map((value, i) => value + (by * (kept.prompt[i] ?? 0)) / norm), false).loss;
    expect(Math.abs((moved(0.02) - moved(-0.02)) / 0.04 - norm)).toBeLessThan(0.03 * norm);
  });

  test('norms and learned positions given as the checkpoint has them change nothing; gradients reach them', () => {
    const stored = [...model.norms.flatMap(({ weight, bias, centred }) => [device.readFloats(weight).map((value) => (centred ? value - 1 : value)), ...(bias ? [device.readFloats(bias)] : [])]), ...(model.positions ? [device.readFloats(model.positions)] : [])];
    const labels = Int32Array.from(ids, (_, i) => ids[i + 1] ?? -100);
    const run = (values: readonly Float32Array[], recomputeBlocks = false) =>
      device.scope(() => {
        const taken = values.values();
        const take = (shape: readonly number[]) => device.tensor(Float32Array.from(taken.next().value ?? []), shape, 'f32');
        const norms = new Map(model.norms.map(({ path, size, biased }) => [path, { weight: take([size]), bias: biased ? take([size]) : null }]));
        const positions = model.positions && take(model.positions.shape);
        const parameters = [...[...norms.values()].flatMap(({ weight, bias }) => [weight, ...(bias ? [bias] : [])]), ...(positions ? [positions] : [])];
        const adapter: ModelHook = { norms, ...(positions ? { positions } : {}) };
        const { result, gradients: got } = gradients(device, parameters, () => headCrossEntropy(model.forward({ ids, rows: 1, columns }, { adapter, recomputeBlocks }), model.head, labels, { scale: 1 / columns }));
        return { loss: device.readFloats(result.loss)[0] ?? NaN, slopes: got.map((each) => device.readFloats(each as Tensor)), logits: logitsOf(model, { ids, rows: 1, columns }, { adapter }) };
      });
    expect(model.norms.map(({ path, layer, size, biased, centred }) => ({ path, layer, size, ...(biased ? { biased } : {}), ...(centred ? { centred } : {}) }))).toEqual(describeCausalLm(golden.config).norms);
    const { slopes, logits } = run(stored);
    expect(maxDifference(logits, whole)).toBeLessThan(1e-5);
    run(stored, true).slopes.forEach((each, index) => expect(maxDifference(each, slopes[index] as Float32Array)).toBeLessThan(1e-5));
    for (const [which, slope] of slopes.entries()) {
      const norm = Math.hypot(...slope);
      const along = (by: number) => run(stored.map((values, index) => (index === which ? values.map((value, i) => value + (by * (slope[i] ?? 0)) / norm) : values))).loss;
      expect(Math.abs((along(0.02) - along(-0.02)) / 0.04 - norm)).toBeLessThan(0.03 * norm + 2e-4);
    }
  });

  test('a bypass gets what goes through the blocks, without gradient; wanted rows only', () => {
    const outputRows = Int32Array.of(3, 4, 23);
    const weight = () => device.tensor(Float32Array.of(1), [], 'f32');
    device.scope(() => {
      let entering: Float32Array = new Float32Array();
      const listening: ModelHook = { modules: new Map([[model.modules.find(({ kind }) => kind === 'block')?.path ?? '', (output, input) => ((entering = device.readFloats(input)), output)]]) };
      logitsOf(model, { ids, rows: 1, columns }, { adapter: listening });
      const stems = model.stems({ ids, rows: 1, columns }, everyState(model), { outputRows });
      expect(stems.map((stem) => stem?.shape)).toEqual(new Array(model.layers + 1).fill([3, model.hiddenSize]));
      expect(maxDifference(device.readFloats(stems[0] as Tensor), rowsOf(entering, outputRows, model.hiddenSize))).toBe(0);
      const parameter = weight();
      const adapter: ModelHook = { bypass: { states: [model.layers], run: (given) => mul(given[model.layers] as Tensor, parameter) } };
      const plain = rowsOf(logitsOf(model, { ids, rows: 1, columns }, { outputRows }), Int32Array.of(0, 1, 2), V);
      expect(maxDifference(logitsOf(model, { ids, rows: 1, columns }, { adapter, outputRows }), plain)).toBe(0);
      expect(maxDifference(logitsOf(model, { ids, rows: 1, columns }, { adapter, outputRows, stems }), plain)).toBe(0);
      const { gradients: got } = gradients(device, [parameter], () => headCrossEntropy(model.forward({ ids, rows: 1, columns }, { adapter, outputRows }), model.head, Int32Array.of(1, 2, 3), { scale: 1 }));
      expect(got[0]).not.toBeNull();
    });
  });
});

function rowsOf(x: Float32Array, rows: Int32Array, width: number): Float32Array {
  return Float32Array.from([...rows].flatMap((row) => [...x.subarray(row * width, (row + 1) * width)]));
}

const everyState = (model: CausalLm): number[] => Array.from({ length: model.layers + 1 }, (_, state) => state);

/** What the embedding gives for the first tokens. */
function firstEmbeddings(model: CausalLm, ids: Int32Array): Tensor {
  const seen: Tensor[] = [];
  const embed = (embedded: Tensor): Tensor => {
    seen.push(model.device.alias(embedded).retain());
    return embedded;
  };
  model.device.scope(() => model.stems({ ids: ids.slice(0, virtual), rows: 1, columns: virtual }, [], { adapter: { embed } }));
  return model.device.scope(() => {
    const [held] = seen as [Tensor];
    const copy = scale(held, 1);
    held.release();
    return copy;
  });
}
