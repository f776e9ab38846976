import type { RecordStore, WorkerRecord } from '@tunefleet/ports';
import { databaseTime } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import { stopDrained } from '../fleet/stops';
import type { Prisma, Worker } from '../generated/client';
import { workerColumns } from './columns';
import { workerRecord } from './mapping';

type WorkerControlMethods = Pick<RecordStore, 'listWorkers' | 'countLiveAttempts' | 'setWorkerCordoned' | 'drainWorker'>;

/** What operators see of workers and may do to them. */
export function workerControlMethods(db: Database): WorkerControlMethods {
  const { prisma } = db;
  return {
    listWorkers: () => db.repeating(async () => (await db.statements.$queryRaw<Worker[]>`select ${workerColumns} from worker w order by w.name, w.id`).map(workerRecord)),

    countLiveAttempts: () =>
      db.repeating(async () => {
        const counts = await prisma.attempt.groupBy({ by: ['workerId'], where: { status: { not: 'finished' } }, _count: { _all: true } });
        return new Map(counts.map(({ workerId, _count }) => [workerId, _count._all]));
      }),

    setWorkerCordoned: (id, cordoned, reason) =>
      db.transaction(async (tx) => {
        if (cordoned) return change(tx, id, { cordoned, cordonReason: reason ?? null });
        return change(tx, id, { cordoned, cordonReason: null, drain: null, drainDeadline: null, uncordonedAt: await databaseTime(tx) });
      }),

    drainWorker: (id, { mode, deadlineMs, graceMs }) =>
      db.transaction(async (tx) => {
        const deadline = deadlineMs === undefined ? null : new Date((await databaseTime(tx)).getTime() + deadlineMs);
        const drained = await change(tx, id, { cordoned: true, cordonReason: 'draining', drain: mode, drainDeadline: deadline });
        if (drained !== null) await stopDrained(tx, graceMs, id);
        return drained;
      }),
  };
}

async function change(tx: Transaction, id: string, data: Prisma.WorkerUpdateManyMutationInput): Promise<WorkerRecord | null> {
  if ((await tx.worker.updateMany({ where: { id }, data })).count === 0) return null;
  await announce(tx, 'schedule');
  return workerRecord(await tx.worker.findUniqueOrThrow({ where: { id } }));
}
