import { TunefleetError, invariant, newId } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { Prisma, type DatasetVersion, type File } from '../generated/client';
import { datasetVersionColumns, fileColumns } from './columns';
import { datasetVersionRecord, fileRecord, jsonText, plainText } from './mapping';
import { inOrder, toPage, unknownAfter } from './paging';
import { requireStorage } from './team-bounds';

type FileMethods = Pick<RecordStore, 'createFile' | 'getFile' | 'listFiles' | 'setFileStatus' | 'deleteFile' | 'upsertDatasetVersion'>;

export function fileMethods(db: Database): FileMethods {
  const { prisma } = db;
  return {
    createFile: (file) =>
      db.transaction(async (tx) => {
        const { bytes, ...rest } = file;
        await requireStorage(tx, file.teamId, bytes);
        return fileRecord(await tx.file.create({ data: { ...rest, filename: plainText(rest.filename), id: newId('file'), bytes: BigInt(bytes) } }));
      }),

    getFile: (teamId, id) =>
      db.repeating(async () => {
        const [row] = await db.statements.$queryRaw<File[]>`select ${fileColumns} from file f where f.id = ${id} and f.team_id = ${teamId} and f.deleted_at is null`;
        return row === undefined ? null : fileRecord(row);
      }),

    listFiles: (teamId, { after, limit, purpose, order }) =>
      db.repeating(async () => {
        // A deleted file still says where its page ended: clients delete what they list, page by page.
        if (after !== undefined && (await prisma.file.count({ where: { id: after, teamId } })) === 0) throw unknownAfter(after);
        const direction = order === 'asc' ? Prisma.sql`asc` : Prisma.sql`desc`;
        const comparison = order === 'asc' ? Prisma.sql`>` : Prisma.sql`<`;
        const found = await prisma.$queryRaw<{ id: string }[]>`
          select id from file
          where team_id = ${teamId} and deleted_at is null
            ${purpose === undefined ? Prisma.empty : Prisma.sql`and purpose = ${purpose}`}
            ${after === undefined ? Prisma.empty : Prisma.sql`and (created_at, id) ${comparison} (select created_at, id from file where id = ${after})`}
          order by created_at ${direction}, id ${direction}
          limit ${limit + 1}`;
        const ids = found.map(({ id }) => id);
        return toPage(inOrder(ids, await prisma.file.findMany({ where: { id: { in: ids } } })), limit, fileRecord);
      }),

    setFileStatus: (id, status, statusDetails) =>
      db.repeating(async () => {
        await prisma.file.updateMany({ where: { id }, data: { status, statusDetails: statusDetails === null ? null : plainText(statusDetails) } });
      }),

    deleteFile: (teamId, id) =>
      db.transaction(async (tx) => {
        const found = await tx.$queryRaw<unknown[]>`select 1 as found from file where id = ${id} and team_id = ${teamId} and deleted_at is null for update`;
        if (found.length === 0) return null;
        const [user] = await tx.$queryRaw<{ id: string; status: string }[]>`
          select id, status from job
          where team_id = ${teamId} and status not in ('succeeded', 'failed', 'cancelled')
            and jsonb_path_exists(spec, '$.** ? (@ == $file)', jsonb_build_object('file', ${id}::text))
          limit 1`;
        if (user) {
          throw new TunefleetError('invalid_input', `file ${id} is used by job ${user.id}, which is ${user.status}: cancel the job or wait for its end, then delete the file`, {
            reason: 'file_in_use',
            param: 'file_id',
            details: { jobId: user.id },
          });
        }
        await tx.$executeRaw`update file set deleted_at = clock_timestamp() where id = ${id}`;
        return fileRecord(await tx.file.findUniqueOrThrow({ where: { id } }));
      }),

    upsertDatasetVersion: (version) =>
      db.repeating(async () => {
        const { teamId, contentHash, format, rowCount, summary } = version;
        // The same bytes under the same format have the same report, unless the validator has learnt something: mostly nothing is written.
        const [row] = await db.statements.$queryRaw<DatasetVersion[]>`
          with known as (
            select ${datasetVersionColumns} from dataset_version d
            where team_id = ${teamId} and content_hash = ${contentHash} and format = ${format} and row_count = ${rowCount}::int and summary = ${jsonText(summary)}::jsonb),
          written as (
            insert into dataset_version as d (id, team_id, content_hash, format, row_count, summary)
            select ${newId('datasetVersion')}, ${teamId}, ${contentHash}, ${format}, ${rowCount}::int, ${jsonText(summary)}::jsonb where not exists (select from known)
            on conflict (team_id, content_hash, format) do update set row_count = excluded.row_count, summary = excluded.summary
            returning ${datasetVersionColumns})
          select * from known union all select * from written`;
        invariant(row !== undefined, 'the database did not answer with the row it wrote');
        return datasetVersionRecord(row);
      }),
  };
}
