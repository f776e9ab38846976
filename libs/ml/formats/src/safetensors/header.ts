/**
 * The header of a safetensors file: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
 * Everything a hostile file could lie about is checked here, before any tensor memory is taken.
 * @see https://github.com/huggingface/safetensors, "Format"
 */
import { TunefleetError, errorMessage } from '@tunefleet/foundation';
import { SAFETENSORS_DTYPES, isSafetensorsDtype, type SafetensorsDtype } from './dtype';

/** Longest header accepted; the format's own limit. */
export const HEADER_BYTES_MAX = 100_000_000;
const TENSORS_MAX = 1_000_000;
const DIMENSIONS_MAX = 16;
const NAME_LENGTH_MAX = 1024;

export interface SafetensorsEntry {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
}

/** @throws TunefleetError `incompatible_artifact` */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  if (fileBytes < 8 || prefix.length < 8) throw damaged(file, `has ${fileBytes} bytes, too few for a header`);
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(HEADER_BYTES_MAX)) throw damaged(file, `claims a header of ${length} bytes; the limit is ${HEADER_BYTES_MAX}`);
  if (length > BigInt(fileBytes - 8)) throw damaged(file, `claims a header of ${length} bytes but only ${fileBytes - 8} follow; the download may be cut short`);
  return Number(length);
}

/**
 * @param json the header's bytes
 * @param fileBytes size of the whole file
 * @throws TunefleetError `incompatible_artifact` naming the file, the tensor and what is wrong
 */
export function parseHeader(json: Uint8Array, fileBytes: number, file: string): SafetensorsHeader {
  const text = decodeUtf8(json, file);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(file, `has a header that is not JSON (${errorMessage(error)})`);
  }
  if (!isRecord(value)) throw damaged(file, 'has a header that is not a JSON object');
  const keys = topLevelKeys(text);
  const seen = new Set<string>();
  for (const key of keys) {
    if (seen.has(key)) throw damaged(file, `names tensor "${shorten(key)}" twice`);
    seen.add(key);
  }
  const dataStart = 8 + json.length;
  const dataBytes = fileBytes - dataStart;
  const entries: [string, SafetensorsEntry][] = [];
  for (const [name, raw] of Object.entries(value)) {
    if (name === '__metadata__') continue;
    if (entries.length >= TENSORS_MAX) throw damaged(file, `holds more than ${TENSORS_MAX} tensors`);
    entries.push([name, parseEntry(name, raw, { file, dataStart, dataBytes })]);
  }
  entries.sort(([, a], [, b]) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkContiguous(entries, dataStart, dataStart + dataBytes, file);
  return { metadata: parseMetadata(value['__metadata__'], file), tensors: new Map(entries) };
}

interface EntryContext {
  readonly file: string;
  readonly dataStart: number;
  readonly dataBytes: number;
}

function parseEntry(name: string, raw: unknown, { file, dataStart, dataBytes }: EntryContext): SafetensorsEntry {
  const fail = (what: string): TunefleetError => damaged(file, `tensor "${shorten(name)}" ${what}`);
  if (name.length === 0 || name.length > NAME_LENGTH_MAX) throw fail(`has a name of ${name.length} characters; allowed are 1 to ${NAME_LENGTH_MAX}`);
  if (!isRecord(raw)) throw fail('has no description object');
  const { dtype, shape, data_offsets: offsets } = raw;
  if (!isSafetensorsDtype(dtype)) throw fail(`has dtype ${JSON.stringify(dtype)?.slice(0, 40)}; known are ${Object.keys(SAFETENSORS_DTYPES).join(', ')}`);
  if (!Array.isArray(shape) || shape.length > DIMENSIONS_MAX || !shape.every(isSize)) throw fail(`has a bad shape; it must be at most ${DIMENSIONS_MAX} whole numbers >= 0`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) throw fail('has bad data_offsets; they must be two whole numbers >= 0');
  const [begin, end] = offsets as [number, number];
  if (end < begin || end > dataBytes) throw fail(`lies at bytes ${begin}..${end}, outside the ${dataBytes} data bytes of the file`);
  const byteLength = (shape as number[]).reduce((product, size) => product * size, SAFETENSORS_DTYPES[dtype]);
  if (!Number.isSafeInteger(byteLength)) throw fail(`has shape [${shape.join(', ')}], too large to count its bytes`);
  if (byteLength !== end - begin) throw fail(`has shape [${shape.join(', ')}] of ${dtype} = ${byteLength} bytes but ${end - begin} bytes of data`);
  return { dtype, shape: shape as number[], offset: dataStart + begin, byteLength };
}

function checkContiguous(entries: readonly [string, SafetensorsEntry][], start: number, end: number, file: string): void {
  let position = start;
  let previous = '';
  for (const [name, entry] of entries) {
    if (entry.offset < position) throw damaged(file, `tensors "${shorten(previous)}" and "${shorten(name)}" overlap`);
    if (entry.offset > position) throw damaged(file, `has ${entry.offset - position} unused bytes before tensor "${shorten(name)}"`);
    position += entry.byteLength;
    previous = name;
  }
  if (position !== end) throw damaged(file, `has ${end - position} bytes after its last tensor`);
}

function parseMetadata(raw: unknown, file: string): Record<string, string> {
  if (raw === undefined || raw === null) return {};
  if (!isRecord(raw) || !Object.values(raw).every((value) => typeof value === 'string')) {
    throw damaged(file, 'has a __metadata__ that is not an object of strings');
  }
  return raw as Record<string, string>;
}

/** Keys of the outermost object, duplicates kept (JSON.parse keeps the last one silently). The text is known to be valid JSON. */
function topLevelKeys(text: string): string[] {
  const keys: string[] = [];
  let depth = 0;
  let expectKey = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (character === '"') {
      const end = stringEnd(text, index);
      if (depth === 1 && expectKey) keys.push(JSON.parse(text.slice(index, end)) as string);
      expectKey = false;
      index = end - 1;
    } else if (character === '{' || character === '[') {
      depth += 1;
      expectKey = depth === 1;
    } else if (character === '}' || character === ']') {
      depth -= 1;
    } else if (character === ',' && depth === 1) {
      expectKey = true;
    }
  }
  return keys;
}

function stringEnd(text: string, start: number): number {
  let index = start + 1;
  while (text[index] !== '"') index += text[index] === '\\' ? 2 : 1;
  return index + 1;
}

function decodeUtf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw damaged(file, 'has a header that is not UTF-8 text');
  }
}

const isSize = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
const shorten = (name: string): string => (name.length > 120 ? `${name.slice(0, 117)}...` : name);

/** A file that cannot be used as it is. */
export function damaged(file: string, what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `${file} ${what}; fetch or export it again`, { reason: 'damaged_safetensors', details: { file } });
}
