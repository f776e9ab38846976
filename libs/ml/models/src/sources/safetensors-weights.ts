import { TunefleetError } from '@tunefleet/foundation';
import { SafetensorsFolder, type SafetensorsDtype } from '@tunefleet/ml-formats';
import type { WeightData, WeightDtype, WeightInfo, WeightSource } from '../weight-source';
import { findFourBit, parseFourBitState, readFourBit, weightsOfFourBit, type StoredFourBit } from './stored-four-bit';

/**
 * Weights of a model folder in safetensors form, one file or shards. Close it after loading. Matrices that bitsandbytes stored in 4 bits appear under their own name and
 * shape, and are given in F32 by `load`, or as they are by `fourBit`.
 */
export class SafetensorsWeights implements WeightSource, Disposable {
  readonly #folder: SafetensorsFolder;
  readonly #names: ReadonlySet<string>;
  readonly #fourBit: ReturnType<typeof findFourBit>;

  private constructor(folder: SafetensorsFolder) {
    this.#folder = folder;
    this.#names = new Set(folder.names());
    this.#fourBit = findFourBit([...this.#names]);
  }

  /** Reads headers only. @throws TunefleetError `incompatible_artifact` when files are damaged or missing */
  static open(folder: string): SafetensorsWeights {
    return new SafetensorsWeights(SafetensorsFolder.open(folder));
  }

  names(): string[] {
    return [...this.#names].filter((name) => !this.#fourBit.companions.has(name));
  }

  info(name: string): WeightInfo {
    const state = this.#state(name);
    if (state) return { dtype: 'F32', shape: state.shape };
    const { dtype, shape } = this.#folder.entry(name);
    if (!isWeightDtype(dtype)) throw new TunefleetError('incompatible_artifact', `tensor "${name}" is stored as ${dtype}; weights must be F32, BF16 or F16`, { reason: 'unsupported_dtype', details: { tensor: name } });
    return { dtype, shape };
  }

  load(name: string): WeightData {
    const stored = this.fourBit(name);
    if (stored) return { dtype: 'F32', shape: stored.shape, data: new Uint8Array(weightsOfFourBit(stored).buffer) };
    return { ...this.info(name), data: this.#folder.read(name) };
  }

  /** Whether any matrix is stored in 4 bits. */
  get hasFourBit(): boolean {
    return this.#fourBit.states.size > 0;
  }

  isFourBit(name: string): boolean {
    return this.#fourBit.states.has(name);
  }

  /** The matrix as stored, if that is in 4 bits. @throws TunefleetError `incompatible_artifact` when parts are missing or damaged */
  fourBit(name: string): StoredFourBit | null {
    const state = this.#state(name);
    if (!state) return null;
    return readFourBit(name, state, (part) => (this.#names.has(part) ? { ...this.#folder.entry(part), data: this.#folder.read(part) } : null));
  }

  close(): void {
    this.#folder.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #state(name: string): ReturnType<typeof parseFourBitState> | null {
    const state = this.#fourBit.states.get(name);
    return state === undefined ? null : parseFourBitState(name, this.#folder.read(state));
  }
}

function isWeightDtype(dtype: SafetensorsDtype): dtype is WeightDtype {
  return dtype === 'F32' || dtype === 'BF16' || dtype === 'F16';
}
