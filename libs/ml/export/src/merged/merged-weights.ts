import { TunefleetError } from '@tunefleet/foundation';
import { f32ArrayToBf16, f32ToF16, type AdapterFiles } from '@tunefleet/ml-formats';
import { Checkpoint, describeCausalLm, type CausalLmDescription, type WeightDtype } from '@tunefleet/ml-models';
import { weightChangesOf, type WeightChanges } from '@tunefleet/ml-tuners';
import { baseOnDisk, toFloats } from '../base-on-disk';

export interface MergedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** What the base stores it as. */
  readonly dtype: WeightDtype;
}

/** A model with an adapter in its weights, read tensor by tensor: nothing larger than the largest one is held. Close it after use. */
export class MergedWeights implements Disposable {
  readonly tensors: readonly MergedTensor[];
  readonly description: CausalLmDescription;
  readonly notices: readonly string[];
  /** The base's head is its embedding, but the merged one's is not. */
  readonly unties: boolean;

  private constructor(
    private readonly checkpoint: Checkpoint,
    config: unknown,
    private readonly changes: WeightChanges,
  ) {
    this.description = describeCausalLm(config);
    this.notices = changes.notices;
    this.unties = changes.unties;
    const own = checkpoint.tensors.map(({ name, shape }) => ({ name, shape, dtype: checkpoint.info(name).dtype }));
    const added = [...changes.byTensor]
      .filter(([name, { ifPresent }]) => !ifPresent && !own.some((tensor) => tensor.name === name))
      .map(([name, { from }]) => ({ ...checkpoint.info(from), name }));
    this.tensors = [...own, ...added];
  }

  /**
   * @param adapter null: the base as it is
   * @throws TunefleetError `invalid_input`, reason `not_mergeable`; `incompatible_artifact` when base or adapter cannot be used
   */
  static open(folder: string, config: unknown, adapter: AdapterFiles | null): MergedWeights {
    const checkpoint = Checkpoint.open(folder, config);
    try {
      const changes = adapter ? weightChangesOf(baseOnDisk(checkpoint, config), adapter) : { byTensor: new Map(), unties: false, notices: [] };
      return new MergedWeights(checkpoint, config, changes);
    } catch (error) {
      checkpoint[Symbol.dispose]();
      throw error;
    }
  }

  /** f32, the caller's. @throws TunefleetError `numerical` when merging gives a number that is not finite */
  values(name: string): Float32Array {
    const change = this.changes.byTensor.get(name);
    const values = toFloats(this.checkpoint.load(change?.from ?? name));
    if (!change) return values;
    change.apply(values);
    if (values.some((value) => !Number.isFinite(value))) throw new TunefleetError('numerical', `merging makes tensor "${name}" hold a number that is not finite; the adapter's values are too large`);
    return values;
  }

  /** Little-endian elements of `dtype`; those of the base where nothing changes. @throws TunefleetError `numerical` as `values`, and for numbers beyond f16 */
  bytes(name: string, dtype: WeightDtype): Uint8Array {
    if (!this.changes.byTensor.has(name)) {
      const stored = this.checkpoint.load(name);
      if (stored.dtype === dtype) return stored.data;
    }
    return rounded(this.values(name), dtype, name);
  }

  [Symbol.dispose](): void {
    this.checkpoint[Symbol.dispose]();
  }
}

/** @throws TunefleetError `numerical` naming the tensor when a number is too large for f16 */
export function rounded(values: Float32Array, dtype: WeightDtype, name: string): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const packed = dtype === 'BF16' ? f32ArrayToBf16(values) : Uint16Array.from(values, f32ToF16);
  if (dtype === 'F16' && packed.some((bits) => (bits & 0x7c00) === 0x7c00)) {
    throw new TunefleetError('numerical', `tensor "${name}" holds numbers beyond 65504, the largest of f16; use bf16 or f32`);
  }
  return new Uint8Array(packed.buffer);
}
