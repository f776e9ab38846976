import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { TunefleetError } from '@tunefleet/foundation';
import { GGML_TYPES, ggmlByteLength, type GgmlTypeName } from './quantise';

const ALIGNMENT = 32;

/** A metadata value with its type in the file. */
export type GgufField =
  | { readonly type: 'u32' | 'i32' | 'f32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'i32s' | 'f32s'; readonly value: readonly number[] }
  | { readonly type: 'bools'; readonly value: readonly boolean[] };

export interface GgufDeclaration {
  readonly name: string;
  readonly type: GgmlTypeName;
  /** Outermost dimension first, as in the rest of the product; the file has them the other way round. */
  readonly shape: readonly number[];
}

/**
 * Writes a GGUF file (version 3, little-endian) tensor by tensor, in the given order. It appears under its name only when it is complete and on disk.
 * @param produce called once per tensor; its bytes are borrowed until written
 * @throws TunefleetError `invariant` when a tensor's bytes are not as declared
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufField>,
  tensors: readonly GgufDeclaration[],
  produce: (tensor: GgufDeclaration) => Uint8Array,
): Promise<void> {
  const partial = `${path}.${randomUUID()}.partial`;
  const handle = await open(partial, 'wx');
  const write = async (bytes: Uint8Array): Promise<void> => {
    for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done, Math.min(1 << 28, bytes.length - done))).bytesWritten;
  };
  try {
    await write(encodeHead(metadata, tensors));
    for (const tensor of tensors) {
      const bytes = produce(tensor);
      const wanted = ggmlByteLength(tensor.type, tensor.shape);
      if (bytes.length !== wanted) throw new TunefleetError('invariant', `tensor "${tensor.name}" was declared with ${wanted} bytes, got ${bytes.length}`);
      await write(bytes);
      await write(new Uint8Array(padding(bytes.length)));
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

function encodeHead(metadata: ReadonlyMap<string, GgufField>, tensors: readonly GgufDeclaration[]): Buffer {
  const parts: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.size)];
  for (const [key, field] of metadata) parts.push(string(key), ...encodeField(field));
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    parts.push(string(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(GGML_TYPES[type]), u64(offset));
    const bytes = ggmlByteLength(type, shape);
    offset += bytes + padding(bytes);
  }
  const head = Buffer.concat(parts);
  return Buffer.concat([head, Buffer.alloc(padding(head.length))]);
}

function encodeField(field: GgufField): Buffer[] {
  switch (field.type) {
    case 'u32':
      return [u32(4), u32(field.value)];
    case 'i32':
      return [u32(5), i32(field.value)];
    case 'f32':
      return [u32(6), f32(field.value)];
    case 'bool':
      return [u32(7), Buffer.from([field.value ? 1 : 0])];
    case 'string':
      return [u32(8), string(field.value)];
    case 'strings':
      return [u32(9), u32(8), u64(field.value.length), ...field.value.map(string)];
    case 'i32s':
      return [u32(9), u32(5), u64(field.value.length), ...field.value.map(i32)];
    case 'f32s':
      return [u32(9), u32(6), u64(field.value.length), ...field.value.map(f32)];
    case 'bools':
      return [u32(9), u32(7), u64(field.value.length), Buffer.from(field.value.map((each) => (each ? 1 : 0)))];
  }
}

const padding = (length: number): number => (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;
const string = (text: string): Buffer => {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([u64(bytes.length), bytes]);
};
const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const i32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
};
const f32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
