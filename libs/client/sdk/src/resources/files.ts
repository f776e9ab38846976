import { openAsBlob } from 'node:fs';
import { basename } from 'node:path';
import { apiFileSchema, fileDeletedSchema, fileListSchema, type filePurposes, type ApiFile, type UploadPurpose } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';
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

/** Training and evaluation data, and what jobs write. */
export class Files {
  constructor(private readonly transport: Transport) {}

  /** Not tried again after a cut connection, since the file may be stored; a busy server (429, 503) is asked again. */
  upload(request: UploadRequest): Promise<ApiFile> {
    const filename = request.filename ?? (request.path === undefined ? undefined : basename(request.path));
    if (filename === undefined) throw new TunefleetError('invalid_input', 'give the upload a filename, or a path to read', { param: 'filename' });
    return this.transport.json(apiFileSchema, {
      method: 'POST',
      path: path('/v1', 'files'),
      signal: request.signal,
      form: async () => {
        const form = new FormData();
        // First, so that the server knows it when the bytes come.
        form.append('purpose', request.purpose);
        if (request.expiresAfterSeconds !== undefined) {
          form.append('expires_after[anchor]', 'created_at');
          form.append('expires_after[seconds]', String(request.expiresAfterSeconds));
        }
        form.append('file', await contentOf(request), filename);
        return form;
      },
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

async function contentOf({ path: file, content }: UploadRequest): Promise<Blob> {
  if (content !== undefined) return content instanceof Blob ? content : new Blob([content]);
  if (file === undefined) throw new TunefleetError('invalid_input', 'an upload needs a path or content', { param: 'file' });
  try {
    return await openAsBlob(file);
  } catch (cause) {
    throw new TunefleetError('invalid_input', `${file} cannot be read: give the path of a file`, { param: 'file', cause });
  }
}
