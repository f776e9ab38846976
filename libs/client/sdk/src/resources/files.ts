import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { apiFileSchema, fileDeletedSchema, fileListSchema, type filePurposes, type ApiFile, type UploadPurpose } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';
import type { FormContent } from '../http/multipart';
import { path, type CallOptions, type Transport } from '../http/transport';
import { eachItem } from '../paging';

export interface UploadRequest extends CallOptions {
  /** File to read; it is streamed, never held in memory. */
  readonly path?: string;
  /** Instead of `path`: the content itself. */
  readonly content?: string | Uint8Array<ArrayBuffer> | Blob;
  /** Name to store it under. Default: the path's last part; needed with `content`. */
  readonly filename?: string;
  readonly purpose: UploadPurpose;
  /** The server removes the file after so many seconds (3600 to 2592000). Default: never. */
  readonly expiresAfterSeconds?: number | undefined;
}

export interface FileQuery extends CallOptions {
  readonly purpose?: (typeof filePurposes)[number] | (string & {}) | undefined;
  readonly limit?: number | undefined;
  readonly order?: 'asc' | 'desc' | undefined;
  readonly after?: string | undefined;
}

const READ_BYTES = 256 * 1024;

/** Training and evaluation data, and what jobs write. */
export class Files {
  constructor(private readonly transport: Transport) {}

  /** Not tried again after a cut connection, since the file may be stored; a busy server (429, 503) is asked again. */
  async upload(request: UploadRequest): Promise<ApiFile> {
    const { purpose, expiresAfterSeconds, signal } = request;
    const filename = request.filename ?? (request.path === undefined ? undefined : basename(request.path));
    if (filename === undefined) throw new TunefleetError('invalid_input', 'give the upload a filename, or a path to read', { param: 'filename' });
    const expiry = expiresAfterSeconds === undefined ? [] : ([['expires_after[anchor]', 'created_at'], ['expires_after[seconds]', String(expiresAfterSeconds)]] as const);
    return this.transport.json(apiFileSchema, {
      method: 'POST',
      path: path('/v1', 'files'),
      signal,
      form: { fields: [['purpose', purpose], ...expiry], file: { name: 'file', filename, content: await contentOf(request) } },
    });
  }

  list({ signal, ...query }: FileQuery = {}): Promise<z.infer<typeof fileListSchema>> {
    return this.transport.json(fileListSchema, { path: path('/v1', 'files'), query, signal });
  }

  each(query: FileQuery = {}): AsyncGenerator<ApiFile> {
    return eachItem((after) => this.list({ ...query, after }), query.after);
  }

  get(id: string, { signal }: CallOptions = {}): Promise<ApiFile> {
    return this.transport.json(apiFileSchema, { path: path('/v1', 'files', id), signal });
  }

  /** The file's bytes as they come. */
  content(id: string, { signal }: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return this.transport.bytes({ path: path('/v1', 'files', id, 'content'), headers: { accept: 'application/binary' }, signal });
  }

  delete(id: string, { signal }: CallOptions = {}): Promise<z.infer<typeof fileDeletedSchema>> {
    return this.transport.json(fileDeletedSchema, { method: 'DELETE', path: path('/v1', 'files', id), signal });
  }
}

async function contentOf({ path: file, content }: UploadRequest): Promise<FormContent> {
  if (content !== undefined) {
    const blob = content instanceof Blob ? content : new Blob([content]);
    return { bytes: blob.size, read: () => blob.stream() as AsyncIterable<Uint8Array> };
  }
  if (file === undefined) throw new TunefleetError('invalid_input', 'an upload needs a path or content', { param: 'file' });
  const found = await stat(file).catch(() => null);
  if (!found?.isFile()) throw new TunefleetError('invalid_input', `${file} cannot be read: give the path of a file`, { param: 'file' });
  return { bytes: found.size, read: () => readFrom(file, found.size) };
}

/** Exactly `bytes` bytes: as many were announced. */
async function* readFrom(file: string, bytes: number): AsyncGenerator<Uint8Array> {
  let seen = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>) {
    seen += chunk.length;
    if (seen > bytes) break;
    yield chunk;
  }
  if (seen !== bytes) throw new TunefleetError('invalid_input', `${file} changed while it was read: upload it again once it is complete`, { param: 'file' });
}
