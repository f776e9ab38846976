import { Inject, Injectable } from '@nestjs/common';
import type { CreateFileFields } from '@tunefleet/contracts';
import { TunefleetError, type Clock } from '@tunefleet/foundation';
import type { FileRecord, Page, PageRequest, RecordStore } from '@tunefleet/ports';
import { CLOCK, RECORD_STORE } from '../tokens';
import type { Upload } from './upload';

/** Files of a team. One that has expired is as good as deleted. */
@Injectable()
export class FilesService {
  constructor(
    @Inject(RECORD_STORE) private readonly records: RecordStore,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  create(teamId: string, { fields, filename, blob }: Upload): Promise<FileRecord> {
    return this.records.createFile({ teamId, filename, purpose: fields.purpose, bytes: blob.bytes, sha256: blob.sha256, expiresAt: this.expiry(fields) });
  }

  /** @throws not_found */
  async get(teamId: string, id: string): Promise<FileRecord> {
    const file = await this.find(teamId, id);
    if (file === null) throw noSuchFile(id);
    return file;
  }

  async find(teamId: string, id: string): Promise<FileRecord | null> {
    const file = await this.records.getFile(teamId, id);
    return file === null || this.hasExpired(file) ? null : file;
  }

  async list(teamId: string, request: PageRequest & { purpose?: string; order: 'asc' | 'desc' }): Promise<Page<FileRecord>> {
    const page = await this.records.listFiles(teamId, request);
    return { ...page, items: page.items.filter((file) => !this.hasExpired(file)) };
  }

  /** @throws not_found; invalid_input naming the live job that uses it */
  async delete(teamId: string, id: string): Promise<FileRecord> {
    const file = await this.records.deleteFile(teamId, id);
    if (file === null) throw noSuchFile(id);
    return file;
  }

  private hasExpired(file: FileRecord): boolean {
    return file.expiresAt !== null && file.expiresAt.getTime() <= this.clock.now();
  }

  private expiry(fields: CreateFileFields): Date | null {
    return fields.expires_after === undefined ? null : new Date(this.clock.now() + fields.expires_after.seconds * 1000);
  }
}

function noSuchFile(id: string): TunefleetError {
  return new TunefleetError('not_found', `no such file: '${id.slice(0, 100)}'. GET /v1/files lists those there are`, { reason: 'file_not_found', param: 'file_id' });
}
