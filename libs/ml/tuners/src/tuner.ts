import type { ModelHook, ModuleSite, Norm, NormSite, ProjectionGroup, TokenTables } from '@tunefleet/ml-nn';
import type { Device, FloatDType, OutputHead, Shape, Tensor } from '@tunefleet/ml-tensor';

/** One trainable tensor. */
export interface ParameterInfo {
  /** Name in the adapter's file without PEFT's `base_model.model.`: `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly name: string;
  /** As it is trained; the file may hold it turned. */
  readonly shape: Shape;
  /** How the optimiser treats it where that is not what the run's settings say. */
  readonly optimiser?: ParameterOptimiser;
}

export interface ParameterOptimiser {
  /** Of the run's learning rate. */
  readonly rateFactor?: number;
  /** Peak rate of its own; it follows the run's schedule. */
  readonly learningRate?: number;
  /** No weight decay. */
  readonly weightDecay?: false;
}

/** Names this step's random masks: equal keys, equal masks. Null outside training. */
export type DropoutKey = readonly [seed: number, counter: number] | null;

/**
 * A tuning method attached to one model. It holds no trainable values: those live in one flat float32 vector (`parameters` one after
 * the other), kept by the trainer or by `LoadedAdapter`.
 */
export interface Tuner {
  readonly kind: string;
  readonly parameters: readonly ParameterInfo[];
  readonly parameterCount: number;
  /**
   * Set by a tuner that is a bypass and nothing else: the places in `Stems` that it reads. What the blocks compute depends on the input alone then, and may be kept
   * from one epoch to the next.
   */
  readonly stemStates?: readonly number[];
  /** Start values; a function of the model, its weights, the spec and the seed. */
  initialValues(seed: number, start: StartContext): Float32Array;
  /**
   * @param values one tensor per parameter, f32, borrowed as long as the hook is used
   * @returns a hook that may hold tensors of the enclosing scope (so bind in one): bind outside of `gradients`, whose backward pass may call the hook again
   */
  bind(model: BindableModel, values: readonly Tensor[], dropout: DropoutKey): ModelHook;
  /**
   * By tuners whose `bind` makes tensors of its own: the same without what only training needs.
   * @param values of the current scope, as the result   @returns the hook and every tensor it holds, those given among them
   */
  bindForInference?(model: BindableModel, values: readonly Tensor[]): { readonly hook: ModelHook; readonly tensors: readonly Tensor[] };
  /**
   * Set by a tuner whose adapters can be bound as lanes of one, for passes that several of them share: tuners of equal keys have equal parameters.
   * @returns null: not as this one is configured
   */
  laneKey?(model: TunableModel): string | null;
  /**
   * @param tuners of one lane key   @param values one tensor per parameter, [K, ...shape], a lane per tuner
   * @returns a hook per tuner, for `routeHooks` only; as `bind`
   */
  bindLanes?(model: BindableModel, tuners: readonly Tuner[], values: readonly Tensor[]): readonly ModelHook[];
  /**
   * Writes the adapter's files into an existing folder.
   * @param model the one it was trained on; a tuner whose start values follow from the weights may need them
   */
  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }, model?: BindableModel): Promise<void>;
}

/** What start values may depend on beside the seed. */
export interface StartContext {
  readonly model: BindableModel;
  /** With the special tokens that the tokenizer puts around a text. */
  tokenise(text: string): Int32Array;
}

/** A model with weights on a device, as far as a tuner needs it; a `CausalLm` is one. */
export interface BindableModel extends TunableModel {
  readonly device: Device;
  readonly computeDtype: FloatDType;
  readonly projectionGroups: readonly ProjectionGroup[];
  /** [V, C] the token embeddings, and the factor the model puts on them. */
  readonly embeddings: Tensor;
  readonly embeddingScale: number;
  readonly norms: readonly Norm[];
  /** [positions, C], of models that have learned them. */
  readonly positions?: Tensor;
  /** [V, C]; absent where a model gives no logits by a head. */
  readonly head?: OutputHead;
}

/** What a tuner attaches to, known without weights. Sizes in elements. */
export interface TunableModel {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Blocks. */
  readonly layers: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly projections: readonly { readonly path: string; readonly inSize: number; readonly outSize: number; readonly fanInFanOut?: true; readonly biased?: true }[];
  /** Absent where the model is no decoder. */
  readonly tables?: TokenTables;
  /** Modules whose output may be changed. */
  readonly modules: readonly ModuleSite[];
  /** In forward order. */
  readonly norms: readonly NormSite[];
}
