import { setImmediate as nextTurn } from 'node:timers/promises';
import { TunefleetError } from '@tunefleet/foundation';
import { Tensor, tensorsOf, type Device, type FloatDType } from '@tunefleet/ml-tensor';
import type { Architecture, LoadedWeight } from '../architecture';
import { describeCausalLm, modelTypeOf } from '../architecture-specs';
import type { CausalLm, Quantisation } from '../causal-lm';
import { architectures } from '../registry';
import { SafetensorsWeights } from '../sources';
import { QuantisedLoader } from './quantised-loader';
import { checkWeights, listNames, loadWeight } from './weight-loader';

export interface LoadOptions {
  /** Holds the safetensors weights. */
  readonly folder: string;
  /** Content of config.json, unchecked. */
  readonly config: unknown;
  /** Dtype of activations and products. */
  readonly computeDtype: FloatDType;
  /** Dtype the matrices rest in; default: `computeDtype`. */
  readonly weightDtype?: FloatDType;
  /** Stores the linear maps in 4 bits, all but the head; what the checkpoint has in 4 bits stays as it is in any case. */
  readonly quantisation?: Quantisation | null | undefined;
  /** Tensors loaded, of how many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** What the user should be told, e.g. tensors that nothing asks for. */
  readonly onNotice?: ((message: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Loads a model one tensor at a time, so that host memory holds no more than the largest one.
 * @returns the model, the caller's to dispose
 * @throws TunefleetError `incompatible_artifact`: architecture, config, missing or wrongly shaped tensors; `invalid_input`: bf16 on a device without it
 */
export async function loadCausalLm(device: Device, options: LoadOptions): Promise<CausalLm> {
  const maps = describeCausalLm(options.config).projections.map(({ path, fanInFanOut = false }) => [`${path}.weight`, fanInFanOut] as const);
  return loadModel(device, options, architectures[modelTypeOf(options.config)], new Map(maps));
}

/** The same for a model of any kind. @param maps weights that may be quantised, and whether the checkpoint has them as [in, out] */
export async function loadModel<Model>(device: Device, options: LoadOptions, architecture: Architecture<Model>, maps: ReadonlyMap<string, boolean> = new Map()): Promise<Model> {
  const { config, computeDtype, weightDtype = computeDtype, quantisation = null } = options;
  const { expected, isRedundant } = architecture.weights(config);
  if ((computeDtype === 'bf16' || weightDtype === 'bf16') && !device.info.bf16) {
    throw new TunefleetError('invalid_input', `the ${device.info.backend} backend cannot compute in bf16; choose f32`, { param: 'computeDtype' });
  }
  using source = SafetensorsWeights.open(options.folder);
  const { storedAs, extra: unused } = checkWeights(source, expected);
  const extra = unused.filter((name) => !isRedundant(name));
  if (extra.length > 0) options.onNotice?.(`the model's files hold ${listNames(extra)}; this architecture does not use them`);

  const loaded = new Map<string, LoadedWeight>();
  using quantising = new QuantisedLoader(device);
  try {
    for (const [index, { name, shape }] of expected.entries()) {
      options.signal?.throwIfAborted();
      const stored = storedAs.get(name) ?? name;
      const transposed = maps.get(name);
      // What a quantised checkpoint left as it was, it left on purpose.
      const inFourBits = transposed !== undefined && (source.hasFourBit ? source.isFourBit(stored) : quantisation !== null);
      const weight = inFourBits ? quantising.load(source, stored, quantisation, transposed) : loadWeight(device, source, stored, shape.length > 1 ? weightDtype : computeDtype);
      loaded.set(name, weight);
      options.onProgress?.(index + 1, expected.length);
      // Lets timers and messages through: a large model takes minutes.
      await nextTurn();
    }
    return architecture.build(device, config, computeDtype, (name) => take(loaded, name));
  } catch (error) {
    for (const weight of loaded.values()) for (const tensor of weight instanceof Tensor ? [weight] : tensorsOf(weight)) tensor.dispose();
    throw error;
  }
}

function take(loaded: Map<string, LoadedWeight>, name: string): LoadedWeight {
  const tensor = loaded.get(name);
  if (!tensor) throw new TunefleetError('invariant', `tensor "${name}" was not loaded, or asked for twice`);
  loaded.delete(name);
  return tensor;
}
