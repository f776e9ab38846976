import type { MultipartFile } from '@fastify/multipart';
import { createFileFieldsSchema, type CreateFileFields } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { BlobInfo, BlobStore } from '@tunefleet/ports';
import type { FastifyRequest } from 'fastify';
import { inputError } from '../http/input-error';
import { foldQuery } from '../http/query';
import { requireStorable } from '../http/storable';

export interface Upload {
  readonly fields: CreateFileFields;
  readonly filename: string;
  readonly blob: BlobInfo;
}

const FIELD_BYTES_MAX = 1_000;
const FIELDS_MAX = 8;
const FILENAME_CHARS_MAX = 255;
/** Boundaries and fields around the file. */
const FORM_BYTES_MAX = 64 * 1024;

/**
 * Reads a form with one file and its fields, in any order; the file goes to the blob store as it comes and is never held in memory.
 * @throws invalid_input, before the file is read where the fields that came first are wrong
 */
export async function readUpload(request: FastifyRequest, blobs: Pick<BlobStore, 'put'>, maxFileBytes: number): Promise<Upload> {
  if (!request.isMultipart()) throw new TunefleetError('invalid_input', 'send the file as multipart/form-data with the fields "file" and "purpose"', { reason: 'invalid_content_type' });
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > maxFileBytes + FORM_BYTES_MAX) throw tooLarge(maxFileBytes);

  const fields = new Map<string, string>();
  let file: { readonly filename: string; readonly blob: BlobInfo } | null = null;
  // One byte more than allowed, so that the store sees the excess and says so.
  const limits = { fileSize: maxFileBytes + 1, files: 1, fields: FIELDS_MAX, fieldSize: FIELD_BYTES_MAX, fieldNameSize: 100, parts: FIELDS_MAX + 1, headerPairs: 20 };
  try {
    for await (const part of request.parts({ limits })) {
      if (part.type === 'field') {
        if (fields.has(part.fieldname)) throw new TunefleetError('invalid_input', `the field '${part.fieldname}' was sent twice`, { reason: 'invalid_value', param: part.fieldname });
        if (part.valueTruncated) throw new TunefleetError('invalid_input', `the field '${part.fieldname}' is longer than ${FIELD_BYTES_MAX} bytes`, { reason: 'invalid_value', param: part.fieldname });
        fields.set(part.fieldname, String(part.value));
        continue;
      }
      if (part.fieldname !== 'file') throw new TunefleetError('invalid_input', `unknown parameter: '${part.fieldname}': the file's field is called "file"`, { reason: 'unknown_parameter', param: part.fieldname });
      // What is wrong already need not wait for half a gigabyte.
      if (fields.has('purpose')) parseFields(fields);
      const filename = filenameOf(part);
      file = { filename, blob: await store(part, blobs, maxFileBytes) };
    }
  } catch (error) {
    throw formError(error);
  }
  const parsed = parseFields(fields);
  if (file === null) throw new TunefleetError('invalid_input', "missing required parameter: 'file'", { reason: 'missing_required_parameter', param: 'file' });
  return { fields: parsed, ...file };
}

async function store(part: MultipartFile, blobs: Pick<BlobStore, 'put'>, maxFileBytes: number): Promise<BlobInfo> {
  try {
    return await blobs.put(part.file, { maxBytes: maxFileBytes });
  } catch (error) {
    if (part.file.bytesRead > maxFileBytes) throw tooLarge(maxFileBytes, error);
    throw error;
  }
}

function parseFields(fields: ReadonlyMap<string, string>): CreateFileFields {
  const folded = foldQuery(Object.fromEntries(fields));
  requireStorable(folded, 'the form');
  const parsed = createFileFieldsSchema.safeParse(folded);
  if (!parsed.success) throw inputError(parsed.error, folded);
  return parsed.data;
}

function filenameOf(part: MultipartFile): string {
  const filename = part.filename.split(/[/\\]/).at(-1) ?? '';
  requireStorable(filename, 'the file name');
  if (filename === '' || filename.length > FILENAME_CHARS_MAX) {
    throw new TunefleetError('invalid_input', `the file needs a name of 1 to ${FILENAME_CHARS_MAX} characters`, { reason: 'invalid_value', param: 'file' });
  }
  return filename;
}

function tooLarge(maxFileBytes: number, cause?: unknown): TunefleetError {
  const message = `the file is larger than ${maxFileBytes} bytes, the limit of this server: split it, or raise TUNEFLEET_MAX_FILE_BYTES`;
  return new TunefleetError('invalid_input', message, { reason: 'file_too_large', param: 'file', cause });
}

const FORM_ERRORS: Readonly<Record<string, string>> = {
  FST_FILES_LIMIT: 'the form may hold one file: upload one at a time',
  FST_FIELDS_LIMIT: `the form may hold ${FIELDS_MAX} fields`,
  FST_PARTS_LIMIT: `the form may hold ${FIELDS_MAX} fields and one file`,
};

/** What the form's parser says is about the client's bytes, unless it is ours already. */
function formError(error: unknown): unknown {
  if (!(error instanceof Error) || error.name === 'TunefleetError') return error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  const isForm = code in FORM_ERRORS || /form|multipart|boundary|part header|premature close|aborted/i.test(error.message) || code === 'FST_NO_FORM_DATA';
  if (!isForm) return error;
  return new TunefleetError('invalid_input', FORM_ERRORS[code] ?? `the form cannot be read: ${error.message}`, { reason: 'invalid_form', cause: error });
}
