import { TunefleetError } from '@tunefleet/foundation';
import { bf16ArrayToF32, dequantiseFourBit, dequantiseScales, f16ToF32, type SafetensorsDtype } from '@tunefleet/ml-formats';
import { z } from 'zod';

/** A matrix as bitsandbytes stores it in 4 bits, with all it takes to read it. */
export interface StoredFourBit {
  readonly type: 'nf4' | 'fp4';
  readonly shape: readonly [outSize: number, inSize: number];
  /** Two codes per byte, the earlier in the high half. */
  readonly packed: Uint8Array;
  /** [16] what each code stands for. */
  readonly codes: Float32Array;
  readonly blockSize: number;
  readonly scales: Float32Array | { readonly codes: Uint8Array; readonly map: Float32Array; readonly maxima: Float32Array; readonly offset: number; readonly blockSize: number };
}

/** A stored tensor in its own dtype. */
export interface StoredTensor {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

const STATE = /\.quant_state\.bitsandbytes__(nf4|fp4)$/;
const COMPANIONS = ['absmax', 'quant_map', 'nested_absmax', 'nested_quant_map'];
const STATE_BYTES_MAX = 65_536;
const size = z.int().min(1).max(2 ** 31);
const blockSize = z.int().min(2).max(65_536).multipleOf(2);
const stateSchema = z.object({
  quant_type: z.enum(['nf4', 'fp4']),
  blocksize: blockSize,
  shape: z.tuple([size, size]),
  nested_blocksize: blockSize.optional(),
  nested_offset: z.number().optional(),
});
type State = z.infer<typeof stateSchema>;

/** The 4-bit tensors of a checkpoint: weight name -> name of its state; and the names of all that belongs to them. */
export function findFourBit(names: readonly string[]): { readonly states: ReadonlyMap<string, string>; readonly companions: ReadonlySet<string> } {
  const states = new Map(names.flatMap((name) => (STATE.test(name) ? [[name.replace(STATE, ''), name] as const] : [])));
  const companions = new Set([...states].flatMap(([weight, state]) => [state, ...COMPANIONS.map((part) => `${weight}.${part}`)]));
  return { states, companions };
}

/** @throws TunefleetError `incompatible_artifact` */
export function parseFourBitState(weight: string, data: Uint8Array): State {
  if (data.length > STATE_BYTES_MAX) throw refuse(weight, `its quant_state has ${data.length} bytes; at most ${STATE_BYTES_MAX} make sense`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(data));
  } catch (error) {
    throw refuse(weight, 'its quant_state is not JSON', error);
  }
  const parsed = stateSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw refuse(weight, `its quant_state has a bad ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
}

/** @param read gives a stored tensor by its full name, or null   @throws TunefleetError `incompatible_artifact` when parts are missing or do not fit each other */
export function readFourBit(weight: string, state: State, read: (name: string) => StoredTensor | null): StoredFourBit {
  const part = (name: string, dtypes: readonly SafetensorsDtype[], count: number): StoredTensor => {
    const tensor = read(name);
    if (!tensor) throw refuse(weight, `"${name}" is missing`);
    const elements = tensor.shape.reduce((product, length) => product * length, 1);
    if (!dtypes.includes(tensor.dtype) || elements !== count) throw refuse(weight, `"${name}" is ${tensor.dtype} [${tensor.shape.join(', ')}], but ${count} elements of ${dtypes.join(' or ')} are needed`);
    return tensor;
  };
  const bytes = (name: string, count: number) => part(name, ['U8'], count).data.slice();
  const floats = (name: string, count: number) => finite(weight, name, floatsOf(part(name, ['F32', 'BF16', 'F16'], count)));
  const { shape, blocksize, quant_type: type, nested_blocksize: nested, nested_offset: offset } = state;
  const count = shape[0] * shape[1];
  const blocks = Math.ceil(count / blocksize);
  const packed = bytes(weight, Math.ceil(count / 2));
  const codes = floats(`${weight}.quant_map`, 16);
  if (nested === undefined || offset === undefined) return { type, shape, packed, codes, blockSize: blocksize, scales: floats(`${weight}.absmax`, blocks) };
  const scales = {
    codes: bytes(`${weight}.absmax`, blocks),
    map: floats(`${weight}.nested_quant_map`, 256),
    maxima: floats(`${weight}.nested_absmax`, Math.ceil(blocks / nested)),
    offset: Math.fround(offset),
    blockSize: nested,
  };
  return { type, shape, packed, codes, blockSize: blocksize, scales };
}

/** The weights in f32, row-major. */
export function weightsOfFourBit({ shape, packed, codes, scales, blockSize: size }: StoredFourBit): Float32Array {
  const factors = scales instanceof Float32Array ? scales : dequantiseScales(scales, scales.map, scales.blockSize);
  return dequantiseFourBit({ packed, scales: factors }, codes, shape[0] * shape[1], size);
}

/** @throws for dtypes that are not floats */
export function floatsOf({ dtype, data }: Pick<StoredTensor, 'dtype' | 'data'>): Float32Array {
  const { buffer } = data.slice();
  if (dtype === 'F32') return new Float32Array(buffer);
  if (dtype === 'BF16') return bf16ArrayToF32(new Uint16Array(buffer));
  if (dtype === 'F16') return Float32Array.from(new Uint16Array(buffer), f16ToF32);
  throw new TunefleetError('invariant', `${dtype} is not a float`);
}

function finite(weight: string, name: string, values: Float32Array): Float32Array {
  const bad = values.find((value) => !Number.isFinite(value));
  if (bad !== undefined) throw refuse(weight, `"${name}" holds ${bad}`);
  return values;
}

function refuse(weight: string, what: string, cause?: unknown): TunefleetError {
  return new TunefleetError('incompatible_artifact', `tensor "${weight}" is stored in 4 bits, but ${what}; download the model again, or use one that is not quantised`, {
    reason: 'bad_quantised_tensor',
    details: { tensor: weight },
    cause,
  });
}
