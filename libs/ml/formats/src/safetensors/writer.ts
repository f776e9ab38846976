import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { TunefleetError } from '@tunefleet/foundation';
import { SAFETENSORS_DTYPES, type SafetensorsDtype } from './dtype';

export interface TensorDeclaration {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** Called once per tensor, in file order; returns its row-major little-endian bytes, which are borrowed until written. */
export type TensorProducer = (tensor: TensorDeclaration) => Uint8Array | Promise<Uint8Array>;

export interface WriteOptions {
  /** Defaults to `{"format": "pt"}`, which Transformers and PEFT ask for. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a safetensors file tensor by tensor: memory for one tensor at a time. The file appears under its name only when it is complete and on disk.
 * The bytes depend on the content alone: tensors are ordered by element size (largest first, which keeps all aligned), then by name, as the reference does.
 * @throws TunefleetError `invariant` on duplicate names or when a producer's byte count does not match
 */
export async function writeSafetensors(path: string, tensors: readonly TensorDeclaration[], produce: TensorProducer, options: WriteOptions = {}): Promise<void> {
  const ordered = fileOrder(tensors);
  const partial = `${path}.${randomUUID()}.partial`;
  const handle = await open(partial, 'wx');
  try {
    await writeFully(handle, encodeHeader(ordered, options.metadata ?? { format: 'pt' }));
    for (const tensor of ordered) {
      const bytes = await produce(tensor);
      if (bytes.length !== byteLengthOf(tensor)) {
        throw new TunefleetError('invariant', `tensor "${tensor.name}" was declared with ${byteLengthOf(tensor)} bytes, got ${bytes.length}`);
      }
      await writeFully(handle, bytes);
    }
    await handle.sync();
    await handle.close();
    await rename(partial, path);
  } catch (error) {
    await handle.close().catch(() => undefined);
    await rm(partial, { force: true });
    throw error;
  }
}

export interface TensorInMemory extends TensorDeclaration {
  readonly data: Uint8Array;
}

/** The whole file as bytes; for adapters and other small sets. Same bytes as `writeSafetensors`. */
export function encodeSafetensors(tensors: readonly TensorInMemory[], options: WriteOptions = {}): Uint8Array<ArrayBuffer> {
  const ordered = fileOrder(tensors);
  const header = encodeHeader(ordered, options.metadata ?? { format: 'pt' });
  const out = new Uint8Array(ordered.reduce((total, tensor) => total + byteLengthOf(tensor), header.length));
  out.set(header, 0);
  let position = header.length;
  for (const tensor of ordered) {
    if (tensor.data.length !== byteLengthOf(tensor)) throw new TunefleetError('invariant', `tensor "${tensor.name}" was declared with ${byteLengthOf(tensor)} bytes, got ${tensor.data.length}`);
    out.set(tensor.data, position);
    position += tensor.data.length;
  }
  return out;
}

/** Size in bytes of a tensor's data. */
export function byteLengthOf({ dtype, shape }: Pick<TensorDeclaration, 'dtype' | 'shape'>): number {
  return shape.reduce((product, size) => product * size, SAFETENSORS_DTYPES[dtype]);
}

function fileOrder<T extends TensorDeclaration>(tensors: readonly T[]): T[] {
  const seen = new Set<string>();
  for (const { name } of tensors) {
    if (seen.has(name) || name === '__metadata__') throw new TunefleetError('invariant', `tensor name "${name}" is used twice or reserved`);
    seen.add(name);
  }
  const keyed = tensors.map((tensor) => ({ tensor, key: Buffer.from(tensor.name, 'utf8'), size: SAFETENSORS_DTYPES[tensor.dtype], rank: DTYPE_RANK.indexOf(tensor.dtype) }));
  keyed.sort((a, b) => b.size - a.size || b.rank - a.rank || Buffer.compare(a.key, b.key));
  return keyed.map(({ tensor }) => tensor);
}

/** The reference's order among types of equal size (its `Dtype` enumeration). */
const DTYPE_RANK: readonly SafetensorsDtype[] = ['BOOL', 'U8', 'I8', 'F8_E5M2', 'F8_E4M3', 'I16', 'U16', 'F16', 'BF16', 'I32', 'U32', 'F32', 'F64', 'I64', 'U64'];

function encodeHeader(ordered: readonly TensorDeclaration[], metadata: Readonly<Record<string, string>>): Buffer {
  const parts: string[] = [];
  const sorted = Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1)));
  if (Object.keys(sorted).length > 0) parts.push(`"__metadata__":${JSON.stringify(sorted)}`);
  let offset = 0;
  for (const tensor of ordered) {
    const end = offset + byteLengthOf(tensor);
    parts.push(`${JSON.stringify(tensor.name)}:${JSON.stringify({ dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, end] })}`);
    offset = end;
  }
  const json = Buffer.from(`{${parts.join(',')}}`, 'utf8');
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, 0x20);
  padded.writeBigUInt64LE(BigInt(padded.length - 8), 0);
  json.copy(padded, 8);
  return padded;
}

/** `FileHandle.write` may write less than asked. */
async function writeFully(handle: Awaited<ReturnType<typeof open>>, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(1 << 28, bytes.length - done));
    done += bytesWritten;
  }
}
