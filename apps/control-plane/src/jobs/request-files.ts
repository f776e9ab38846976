import { Inject, Injectable } from '@nestjs/common';
import { TunefleetError } from '@tunefleet/foundation';
import type { FileRecord } from '@tunefleet/ports';
import { FilesService } from '../files/files.service';

/** Files that a job request names. */
@Injectable()
export class RequestFiles {
  constructor(@Inject(FilesService) private readonly files: FilesService) {}

  /** @throws invalid_input when there is no such file, it is not for this, or it is empty */
  async require(teamId: string, id: string, param: string, purposes: readonly string[]): Promise<FileRecord> {
    const file = await this.files.find(teamId, id);
    if (file === null) throw new TunefleetError('invalid_input', `there is no file '${id}': upload one with POST /v1/files and name its id`, { reason: 'file_not_found', param });
    if (!purposes.includes(file.purpose)) {
      throw new TunefleetError('invalid_input', `file '${id}' has the purpose '${file.purpose}', needed is '${purposes.join("' or '")}': upload it again for that purpose`, {
        reason: 'invalid_file_purpose',
        param,
      });
    }
    if (file.bytes === 0) throw new TunefleetError('invalid_input', `file '${id}' is empty: upload one with a row a line`, { reason: 'empty_file', param });
    return file;
  }
}
