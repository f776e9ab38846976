import type { ApiFile } from '@tunefleet/contracts';
import type { FileRecord } from '@tunefleet/ports';
import { unixSeconds } from '../http/time';

export function fileView(file: FileRecord): ApiFile {
  return {
    id: file.id,
    object: 'file',
    bytes: file.bytes,
    created_at: unixSeconds(file.createdAt),
    filename: file.filename,
    purpose: file.purpose,
    status: file.status,
    ...(file.statusDetails === null ? {} : { status_details: file.statusDetails }),
    ...(file.expiresAt === null ? {} : { expires_at: unixSeconds(file.expiresAt) }),
    sha256: file.sha256,
  };
}
