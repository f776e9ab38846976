import { Readable } from 'node:stream';
import { TunefleetError } from '@tunefleet/foundation';
import type { BlobStore } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';

export interface SentFile {
  readonly sha256: string;
  readonly bytes: number;
  readonly filename: string;
  readonly contentType?: string;
}

/** Streams stored bytes, all or the one range asked for, so that a cut download can go on. @throws not_found when the bytes are gone */
export async function sendBlob(blobs: Pick<BlobStore, 'open'>, file: SentFile, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const range = rangeOf(request.headers.range, file.bytes);
  // Before anything is said about it: an error has other headers.
  const content = request.method === 'HEAD' ? Readable.from([]) : await blobs.open(file.sha256, range ?? undefined);
  reply
    .code(range === null ? 200 : 206)
    .type(file.contentType ?? 'application/octet-stream')
    .header('content-disposition', `attachment; filename*=UTF-8''${encodeURIComponent(file.filename)}`)
    .header('accept-ranges', 'bytes')
    .header('etag', `"${file.sha256}"`)
    .header('content-length', range?.length ?? file.bytes);
  if (range !== null) reply.header('content-range', `bytes ${range.offset}-${range.offset + range.length - 1}/${file.bytes}`);
  await reply.send(content);
}

/** Null: the whole file, also for what is not a single range of bytes (RFC 9110, section 14.2, lets a server ignore it). */
export function rangeOf(header: string | undefined, bytes: number): { offset: number; length: number } | null {
  const [, from = '', to = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? [];
  if (from === '' && to === '') return null;
  const offset = from === '' ? Math.max(0, bytes - Number(to)) : Number(from);
  const end = from === '' || to === '' ? bytes : Math.min(bytes, Number(to) + 1);
  if (offset >= end) throw new TunefleetError('invalid_input', `the range ${String(header)} lies outside of the file's ${bytes} bytes`, { reason: 'invalid_range', param: 'Range' });
  return { offset, length: end - offset };
}
