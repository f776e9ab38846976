import { newId } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { companyMethods } from './company';
import { fileMethods } from './files';
import { controlMethods } from './job-controls';
import { intakeMethods } from './job-intake';
import { jobMethods } from './jobs';
import { adapterRecord } from './mapping';
import { progressMethods } from './progress';
import { teamMethods } from './teams';
import { usageMethods } from './usage-report';
import { workerControlMethods } from './worker-controls';

type OtherMethods = Pick<RecordStore, 'ensureTeam' | 'memoryCorrection' | 'listAdapters' | 'getAdapterByName' | 'getAdapterByJob' | 'deleteAdapter' | 'ping'>;

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

    memoryCorrection: (shape) =>
      db.repeating(async () => (await db.statements.$queryRaw<{ memory_ratio: number | null }[]>`select memory_ratio from measurement where shape = ${shape}`)[0]?.memory_ratio ?? 1),

    ping: () =>
      db.repeating(async () => {
        await prisma.$queryRaw`select 1`;
      }),
  };
  return { ...fileMethods(db), ...jobMethods(db), ...intakeMethods(db), ...controlMethods(db), ...progressMethods(db), ...workerControlMethods(db), ...teamMethods(db), ...usageMethods(db), ...companyMethods(db), ...others };
}
