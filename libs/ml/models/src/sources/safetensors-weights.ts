import { TunefleetError } from '@tunefleet/foundation';
import { SafetensorsFolder, type SafetensorsDtype } from '@tunefleet/ml-formats';
import type { WeightData, WeightDtype, WeightInfo, WeightSource } from '../weight-source';

/** Weights of a model folder in safetensors form, one file or shards. Close it after loading. */
export class SafetensorsWeights implements WeightSource, Disposable {
  readonly #folder: SafetensorsFolder;

  private constructor(folder: SafetensorsFolder) {
    this.#folder = folder;
  }

  /** Reads headers only. @throws TunefleetError `incompatible_artifact` when files are damaged or missing */
  static open(folder: string): SafetensorsWeights {
    return new SafetensorsWeights(SafetensorsFolder.open(folder));
  }

  names(): string[] {
    return this.#folder.names();
  }

  info(name: string): WeightInfo {
    const { dtype, shape } = this.#folder.entry(name);
    if (!isWeightDtype(dtype)) throw new TunefleetError('incompatible_artifact', `tensor "${name}" is stored as ${dtype}; weights must be F32, BF16 or F16`, { reason: 'unsupported_dtype', details: { tensor: name } });
    return { dtype, shape };
  }

  load(name: string): WeightData {
    return { ...this.info(name), data: this.#folder.read(name) };
  }

  close(): void {
    this.#folder.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function isWeightDtype(dtype: SafetensorsDtype): dtype is WeightDtype {
  return dtype === 'F32' || dtype === 'BF16' || dtype === 'F16';
}
