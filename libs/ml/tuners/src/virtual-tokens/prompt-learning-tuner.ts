import { invariant } from '@tunefleet/foundation';
import type { KeysValues, ModelHook, PrefixModel } from '@tunefleet/ml-nn';
import { cast, splitAxis, splitHeads, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel, ParameterInfo, StartContext, Tuner } from '../tuner';
import { writePromptFile, type PromptFile } from './adapter-file';
import type { VirtualTokenTable } from './table';

/** How the rows of a table act. @param table [n, width] f32 */
export type TableUse = (table: Tensor, model: BindableModel, lent: PrefixModel) => readonly KeysValues[];

/**
 * A prompt-learning method of PEFT: virtual tokens before every row, one per row of a table. Real tokens see them and are not seen by them, so their keys and
 * values are the same for every row and are computed once per pass.
 */
export class PromptLearningTuner implements Tuner {
  readonly parameters: readonly ParameterInfo[];
  readonly parameterCount: number;

  constructor(
    readonly kind: string,
    private readonly table: VirtualTokenTable,
    private readonly use: TableUse,
    private readonly file: PromptFile,
  ) {
    this.parameters = table.parameters;
    this.parameterCount = table.parameters.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  }

  initialValues(seed: number, start: StartContext): Float32Array {
    return this.table.initialValues(seed, start);
  }

  bind(model: BindableModel, values: readonly Tensor[]): ModelHook {
    invariant(values.length === this.parameters.length, `${this.parameters.length} parameters were bound to ${values.length} tensors`);
    const keysValues = (lent: PrefixModel) => model.device.scope(() => this.use(this.table.compute(values), model, lent));
    return { prefix: { length: this.file.virtualTokens, keysValues } };
  }

  save(values: Float32Array, folder: string, base: { readonly id: string; readonly revision: string }): Promise<void> {
    return writePromptFile(folder, this.file, this.table.computeOnHost(values), base);
  }
}

/** Rows are token embeddings, scale included. */
export const asEmbeddings: TableUse = (table, { computeDtype }, lent) => lent.ofPrompt(cast(table, computeDtype));

/** A row holds the keys and values of every layer, [2 L, K, D]: keys at 2 l, values at 2 l + 1. Keys are used as they are, without a rotation. */
export const asKeysValues: TableUse = (table, { computeDtype, layers, keyValueHeads: K, headDim: D }) => {
  const slots = splitAxis(cast(table, computeDtype), new Array<number>(2 * layers).fill(K * D), 1); // [n, K * D]
  const heads = (slot: number): Tensor => splitHeads(slots[slot] as Tensor, 1, [K])[0] as Tensor; // [1, K, n, D]
  return Array.from({ length: layers }, (_, layer) => ({ k: heads(2 * layer), v: heads(2 * layer + 1) }));
};
