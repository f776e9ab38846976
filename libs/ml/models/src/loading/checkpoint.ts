import { modelTypeOf } from '../architecture-specs';
import { architectures } from '../registry';
import { SafetensorsWeights } from '../sources';
import type { WeightData, WeightInfo } from '../weight-source';
import { checkWeights, type ExpectedWeight } from './weight-loader';

/** The weights of a model folder under the names the architecture gives them, without a device. Close it after use. */
export class Checkpoint implements Disposable {
  private constructor(
    private readonly source: SafetensorsWeights,
    /** Every tensor of the architecture; a head that is the embedding is not among them. */
    readonly tensors: readonly ExpectedWeight[],
    private readonly storedAs: ReadonlyMap<string, string>,
  ) {}

  /** Reads headers only. @throws TunefleetError `incompatible_artifact` as `loadCausalLm` */
  static open(folder: string, config: unknown): Checkpoint {
    const { expected } = architectures[modelTypeOf(config)].weights(config);
    const source = SafetensorsWeights.open(folder);
    try {
      return new Checkpoint(source, expected, checkWeights(source, expected).storedAs);
    } catch (error) {
      source.close();
      throw error;
    }
  }

  info(name: string): WeightInfo {
    return this.source.info(this.storedAs.get(name) ?? name);
  }

  /** As `WeightSource.load`. */
  load(name: string): WeightData {
    return this.source.load(this.storedAs.get(name) ?? name);
  }

  [Symbol.dispose](): void {
    this.source.close();
  }
}
