/** For tests: runs of PEFT recorded by `tools/golden/lora_family.py`, and the same runs made here. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm, type ForwardOptions } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, headLogits, openDevice, type Tensor } from '@tunefleet/ml-tensor';
import type { Tuner } from '../tuner';
import { transposed, type LoraParameter } from './parameters';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const [rows, columns] = [2, 24];

export const fixture = (name: string): string => join(libraries, 'tuners', 'fixtures', name);

export async function openBase(name: string, backend: 'tensorflow' | 'wasm', dtype: 'f32' | 'bf16' = 'f32'): Promise<CausalLm> {
  const folder = join(libraries, 'models', 'fixtures', name);
  const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  return loadCausalLm(await openDevice({ backend }), { folder, config, computeDtype: dtype });
}

export class GoldenRun {
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly #arrays: ReadonlyMap<string, ArrayBuffer>;

  constructor(name: string) {
    using file = SafetensorsFile.open(join(fixture(name), 'golden.safetensors'));
    this.#arrays = new Map([...file.tensors.keys()].map((key) => [key, file.read(key).slice().buffer]));
    ({ learningRate: this.learningRate, weightDecay: this.weightDecay } = JSON.parse(readFileSync(join(fixture(name), 'run.json'), 'utf8')) as { learningRate: number; weightDecay: number });
  }

  get names(): readonly string[] {
    return [...this.#arrays.keys()];
  }

  floats(name: string): Float32Array {
    return new Float32Array(this.#arrays.get(name) as ArrayBuffer);
  }

  /** A parameter's array under a prefix such as `grad.`, laid out as the tuner trains it. */
  ofParameter(prefix: string, { name, shape: [rank = 0, size = 0], turned }: LoraParameter): Float32Array {
    const given = this.floats(`${prefix}${name}`);
    return turned ? transposed(given, size, rank) : given;
  }

  logits(model: CausalLm, options: ForwardOptions = {}): Float32Array {
    return model.device.scope(() => model.device.readFloats(headLogits(model.forward({ ids: this.#integers('ids'), rows, columns }, options), headOf(model, options.adapter ?? null))));
  }

  /** Mean loss over the labelled tokens, each predicted from the one before, and the gradient of every parameter. */
  step(model: CausalLm, tuner: Tuner, values: Float32Array, options: { recomputeBlocks?: boolean; dropout?: readonly [number, number] } = {}): { loss: number; gradients: Float32Array[] } {
    const { device } = model;
    const given = this.#integers('labels');
    const labels = Int32Array.from(given, (_, i) => (i % columns === columns - 1 ? -100 : (given[i + 1] ?? -100)));
    const counted = labels.reduce((sum, label) => sum + (label === -100 ? 0 : 1), 0);
    return device.scope(() => {
      const parameters = parametersOf(model, tuner, values);
      const adapter = tuner.bind(model, parameters, options.dropout ?? null);
      const { result, gradients: grads } = gradients(device, parameters, () => {
        const hidden = model.forward({ ids: this.#integers('ids'), rows, columns }, { adapter, recomputeBlocks: options.recomputeBlocks ?? false });
        return headCrossEntropy(hidden, headOf(model, adapter), labels, { scale: 1 / counted });
      });
      return { loss: device.readFloats(result.loss)[0] ?? NaN, gradients: grads.map((gradient) => (gradient ? device.readFloats(gradient) : new Float32Array())) };
    });
  }

  #integers(name: string): Int32Array {
    return new Int32Array(this.#arrays.get(name) as ArrayBuffer);
  }
}

export function parametersOf({ device }: CausalLm, tuner: Tuner, values: Float32Array): Tensor[] {
  let at = 0;
  return tuner.parameters.map(({ shape }) => device.tensor(values.slice(at, (at += shape.reduce((product, each) => product * each, 1))), shape, 'f32'));
}

/** torch.optim.AdamW, one rate and decay per element. */
export class PlainAdamW {
  #steps = 0;
  readonly #m: Float64Array;
  readonly #v: Float64Array;

  constructor(
    private readonly values: Float32Array,
    private readonly rates: ArrayLike<number>,
    private readonly decays: ArrayLike<number>,
  ) {
    this.#m = new Float64Array(values.length);
    this.#v = new Float64Array(values.length);
  }

  step(gradient: Float32Array): void {
    this.#steps++;
    this.values.forEach((value, i) => {
      const [g, rate] = [gradient[i] ?? NaN, this.rates[i] ?? NaN];
      const m = (this.#m[i] = 0.9 * (this.#m[i] ?? 0) + 0.1 * g);
      const v = (this.#v[i] = 0.999 * (this.#v[i] ?? 0) + 0.001 * g * g);
      const step = m / (1 - 0.9 ** this.#steps) / (Math.sqrt(v / (1 - 0.999 ** this.#steps)) + 1e-8);
      this.values[i] = value * (1 - rate * (this.decays[i] ?? NaN)) - rate * step;
    });
  }
}

export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (!(difference <= most)) most = difference;
  }
  return most;
}

export function largest(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
