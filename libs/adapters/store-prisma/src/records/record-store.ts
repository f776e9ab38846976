import { newId } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { announce } from '../database/wake-channel';
import { fileMethods } from './files';
import { jobMethods } from './jobs';
import { adapterRecord, workerRecord } from './mapping';
import { progressMethods } from './progress';

type OtherMethods = Omit<RecordStore, keyof ReturnType<typeof fileMethods> | keyof ReturnType<typeof jobMethods> | keyof ReturnType<typeof progressMethods>>;

export function prismaRecordStore(db: Database): RecordStore {
  const { prisma } = db;
  const others: OtherMethods = {
    ensureTeam: (name) =>
      db.repeating(async () => {
        await prisma.$executeRaw`insert into team (id, name) values (${newId('team')}, ${name}) on conflict (name) do nothing`;
        return prisma.team.findUniqueOrThrow({ where: { name }, select: { id: true, name: true } });
      }),

    listAdapters: (teamId) =>
      db.repeating(async () =>
        (await prisma.adapter.findMany({ where: { teamId, deletedAt: null }, orderBy: [{ createdAt: 'desc' }, { id: 'desc' }] })).map(adapterRecord),
      ),

    getAdapterByName: (teamId, name) =>
      db.repeating(async () => {
        const row = await prisma.adapter.findFirst({ where: { teamId, name, deletedAt: null } });
        return row && adapterRecord(row);
      }),

    getAdapterByJob: (teamId, jobId) =>
      db.repeating(async () => {
        const row = await prisma.adapter.findFirst({ where: { teamId, jobId, deletedAt: null } });
        return row && adapterRecord(row);
      }),

    deleteAdapter: (teamId, name) =>
      db.repeating(
        async () =>
          (await prisma.$executeRaw`update adapter set deleted_at = clock_timestamp() where team_id = ${teamId} and name = ${name} and deleted_at is null`) > 0,
      ),

    listWorkers: () => db.repeating(async () => (await prisma.worker.findMany({ orderBy: [{ name: 'asc' }, { id: 'asc' }] })).map(workerRecord)),

    setWorkerCordoned: (id, cordoned) =>
      db.transaction(async (tx) => {
        if ((await tx.worker.updateMany({ where: { id }, data: { cordoned } })).count === 0) return null;
        await announce(tx, 'schedule');
        return workerRecord(await tx.worker.findUniqueOrThrow({ where: { id } }));
      }),

    ping: () =>
      db.repeating(async () => {
        await prisma.$queryRaw`select 1`;
      }),
  };
  return { ...fileMethods(db), ...jobMethods(db), ...progressMethods(db), ...others };
}
