import { invariant, TunefleetError } from '@tunefleet/foundation';
import { bytePairs, DYNAMIC_MAP, EIGHT_BIT_BLOCK, FOUR_BIT_BLOCK, FOUR_BIT_CODES, quantiseFourBit, quantiseScales } from '@tunefleet/ml-formats';
import type { Device, QuantisedWeights, Tensor } from '@tunefleet/ml-tensor';
import type { Quantisation } from '../causal-lm';
import type { SafetensorsWeights, StoredFourBit } from '../sources';
import { floatsOf } from '../sources/stored-four-bit';

/** Puts matrices on the device in 4 bits, one at a time. Dispose it when the model is loaded: tables are shared between matrices, each of which holds them. */
export class QuantisedLoader implements Disposable {
  private readonly tables = new Map<string, Tensor>();

  constructor(private readonly device: Device) {}

  /** @param transposed the checkpoint holds it as [in, out]   @throws TunefleetError `incompatible_artifact` for weights that are not finite */
  load(source: SafetensorsWeights, name: string, quantisation: Quantisation | null, transposed: boolean): QuantisedWeights {
    return this.upload(source.fourBit(name) ?? quantise(source, name, quantisation, transposed));
  }

  [Symbol.dispose](): void {
    for (const table of this.tables.values()) table.dispose();
    this.tables.clear();
  }

  private upload({ packed, codes, scales, blockSize, shape: [outSize, inSize] }: StoredFourBit): QuantisedWeights {
    const { device } = this;
    return {
      packed: device.tensor(packed, [packed.length], 'u8'),
      table: this.table(bytePairs(codes), [256, 2]),
      scales:
        scales instanceof Float32Array
          ? { values: device.tensor(scales, [scales.length], 'f32') }
          : {
              codes: device.tensor(scales.codes, [scales.codes.length], 'u8'),
              map: this.table(scales.map, [256]),
              maxima: device.tensor(scales.maxima, [scales.maxima.length], 'f32'),
              offset: scales.offset,
              blockSize: scales.blockSize,
            },
      blockSize,
      outSize,
      inSize,
    };
  }

  private table(values: Float32Array, shape: readonly number[]): Tensor {
    const key = values.join(' ');
    let known = this.tables.get(key);
    if (!known) {
      known = this.device.tensor(values.slice(), shape, 'f32');
      this.tables.set(key, known);
    }
    return this.device.alias(known);
  }
}

function quantise(source: SafetensorsWeights, name: string, quantisation: Quantisation | null, transposed: boolean): StoredFourBit {
  invariant(quantisation, `"${name}" is to be quantised, but nothing says how`);
  const { type, doubleQuant } = quantisation;
  const stored = source.load(name);
  const [rows, columns] = stored.shape as [number, number];
  const values = transposed ? transpose(floatsOf(stored), rows, columns) : floatsOf(stored);
  const { packed, scales } = quantiseFourBit(values, type);
  const bad = scales.findIndex((scale) => !Number.isFinite(scale));
  if (bad !== -1) throw new TunefleetError('incompatible_artifact', `tensor "${name}" holds ${scales[bad]}, so it cannot be quantised; download the model again`, { reason: 'not_finite', details: { tensor: name } });
  return {
    type,
    shape: transposed ? [columns, rows] : [rows, columns],
    packed,
    codes: FOUR_BIT_CODES[type],
    blockSize: FOUR_BIT_BLOCK,
    scales: doubleQuant ? { ...quantiseScales(scales), map: DYNAMIC_MAP, blockSize: EIGHT_BIT_BLOCK } : scales,
  };
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) turned[column * rows + row] = values[row * columns + column] as number;
  return turned;
}
