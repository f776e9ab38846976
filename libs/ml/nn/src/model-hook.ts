import type { AdaptedHead, OutputHead, Tensor } from '@tunefleet/ml-tensor';
import type { NormWeights } from './norm';
import type { ProjectionGroup } from './projection';

/**
 * What active adapters make of a model's forward pass. Every part may be left out; where nothing is hooked the model computes, bit for bit, what it
 * computes alone. Tensors given to a hook are borrowed, tensors it returns are the model's, unless said otherwise.
 */
export interface ModelHook {
  /** Set where all else depends on the rows of a pass: a model asks for the hook of each pass and uses that alone; see `hookOfPass`. */
  forPass?(rows: PassRows): ModelHook;
  /**
   * Linear maps.
   * @param x [N, in]
   * @param residual [N, out], to be added to the output of a group of one map
   * @returns per map of the group [N, out], adapted; null: this group is not adapted
   */
  project?(x: Tensor, group: ProjectionGroup, residual: Tensor | null): readonly Tensor[] | null;
  /** Modules whose output is changed, by the path of a `ModuleSite`. */
  readonly modules?: ReadonlyMap<string, ModuleHook>;
  /**
   * Token embeddings.
   * @param embedded [N, C], what the embedding gives   @param scale the factor that this model has put on the rows of its table
   * @returns [N, C]
   */
  embed?(embedded: Tensor, ids: Int32Array, scale: number): Tensor;
  /** Trained weights of norms, by the path of a `NormSite`; see `normalise`. */
  readonly norms?: ReadonlyMap<string, NormWeights>;
  /** Models with learned positions: [positions, C] f32, trainable, in place of the frozen table. */
  readonly positions?: Tensor;
  /** Changes the output head; see `headOf`. */
  readonly head?: AdaptedHead;
  /** Virtual tokens before every row. */
  readonly prefix?: PrefixHook;
  /** Replaces what enters the final norm. No gradient flows through the blocks then. */
  readonly bypass?: BypassHook;
}

/** Which rows hooks are called with: rows * columns tokens, or the wanted ones of them where the last block has dropped the others. */
export interface PassRows {
  readonly rows: number;
  readonly columns: number;
  /** Ascending. */
  readonly outputRows: Int32Array | null;
}

/**
 * A module's new output. May be called with some rows only: the last block computes those somebody wants.
 * @param output [N, out], what the module computes   @param input [N, in], what it computes that from
 * @returns [N, out] in the dtype of `output`
 */
export type ModuleHook = (output: Tensor, input: Tensor) => Tensor;

/** What a module's path means in a block's computation. */
export type ModuleKind = 'attention' | 'attention-output' | 'mlp' | 'mlp-output' | 'block' | 'final-norm';

/** A module whose output a tuner may change. Several may give the same tensor: they are hooked in the order of the model's list. */
export interface ModuleSite {
  /** Module path in the Hugging Face model: `model.layers.0.mlp`. */
  readonly path: string;
  readonly kind: ModuleKind;
  /** Block it belongs to, from 0; the number of blocks for what comes after them. */
  readonly layer: number;
  readonly inSize: number;
  readonly outSize: number;
}

/** Keys and values of a layer's virtual tokens, [1, K, n, D] each. */
export interface KeysValues {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** Virtual tokens at positions 0 .. length - 1 of every row, seen by all its real tokens, which take the positions after them. */
export interface PrefixHook {
  readonly length: number;
  /** Models with learned positions: the virtual tokens come in behind these, and real tokens have those they have alone. */
  readonly behindPositions?: true;
  /** @returns their keys and values by layer, borrowed by the model; tensors of the current scope, or held by the hook */
  keysValues(model: PrefixModel): readonly KeysValues[];
}

/** What a model lends to a `PrefixHook`. Differentiable. */
export interface PrefixModel {
  /** All that is active in this pass, the prefix included: the same hook, the same keys and values. */
  readonly active: ModelHook;
  /** Runs virtual tokens through all blocks. @param prompt [n, C] token embeddings   @returns keys and values by layer */
  ofPrompt(prompt: Tensor): readonly KeysValues[];
  /**
   * As `ofPrompt`, from hidden states at positions 0 .. n - 1 that enter given layers, in place of what the layer before makes.
   * @param inputs [n, C] by layer, the first among them
   */
  ofLayerInputs(inputs: ReadonlyMap<number, Tensor>): readonly KeysValues[];
}

/**
 * Hidden states that a bypass starts from, [N, C] each, without gradient: at 0 what enters the first block, at l + 1 what block l gives; null where nobody asked.
 * Where only some rows are wanted, only those.
 */
export type Stems = readonly (Tensor | null)[];

export interface BypassHook {
  /** Places in `Stems` that it reads, ascending. */
  readonly states: readonly number[];
  /** Works on every row by itself. @returns [N, C], what enters the final norm instead */
  run(stems: Stems): Tensor;
}

/** The head that turns a model's hidden states into logits under an adapter; the only way for whoever computes logits or a loss to get it. */
export function headOf({ head }: { readonly head: OutputHead }, hook: ModelHook | null): OutputHead {
  return hook?.head ? { ...head, adapted: hook.head } : head;
}

/** What is active in one pass. */
export function hookOfPass(hook: ModelHook | null, rows: PassRows): ModelHook | null {
  return hook?.forPass?.(rows) ?? hook;
}

/** A module's output after the hook on it. @returns the caller's; `output` itself, if there is none */
export function hooked(output: Tensor, input: Tensor, hook: ModelHook | null, path: string): Tensor {
  return hook?.modules?.get(path)?.(output, input) ?? output;
}

/** Whether any of the modules is hooked. */
export function isHooked(hook: ModelHook | null, ...paths: readonly string[]): boolean {
  return hook?.modules !== undefined && paths.some((path) => hook.modules?.has(path));
}
