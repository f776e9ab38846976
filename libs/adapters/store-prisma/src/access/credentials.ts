import { afterStop } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { FleetAccess, JoinResult, Revocation, WorkerJoin } from '@tunefleet/ports';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import { endAttempt } from '../fleet/endings';
import { insertEvents } from '../records/job-events';
import { jsonText, plainText, workerRecord } from '../records/mapping';
import { scopeOf, spendToken } from './join-tokens';

type CredentialMethods = Pick<FleetAccess, 'join' | 'getCredential' | 'revokeWorker'>;

export function credentialMethods(db: Database): CredentialMethods {
  return {
    join: (request) => db.transaction((tx) => join(tx, request)),

    getCredential: (workerId) =>
      db.repeating(async () => {
        const row = await db.prisma.workerCredential.findUnique({ where: { workerId } });
        return row && { workerId, secretHash: row.secretHash, scope: scopeOf(row), revokedAt: row.revokedAt };
      }),

    revokeWorker: (workerId, reason) => db.transaction((tx) => revoke(tx, workerId, reason === null ? 'revoked' : `revoked: ${plainText(reason)}`)),
  };
}

/** Lock order: credential, token. */
async function join(tx: Transaction, { workerId, secretHash, joinTokenId, scope }: WorkerJoin): Promise<JoinResult> {
  const [bound] = await tx.$queryRaw<{ secret_hash: string; revoked: boolean }[]>`
    select secret_hash, revoked_at is not null as revoked from worker_credential where worker_id = ${workerId} for share`;
  if (bound !== undefined) return bound.revoked ? 'revoked' : bound.secret_hash === secretHash ? 'again' : 'taken';
  if (joinTokenId !== null && !(await spendToken(tx, joinTokenId))) return 'token_spent';
  const made = await tx.$executeRaw`
    insert into worker_credential (worker_id, secret_hash, join_token_id, name_pattern, labels)
    values (${workerId}, ${secretHash}, ${joinTokenId}, ${scope.namePattern}, ${scope.labels === null ? null : jsonText(scope.labels)}::jsonb)
    on conflict (worker_id) do nothing`;
  // The use of the token is undone with the transaction.
  if (made === 0) throw new TunefleetError('conflict', `worker ${workerId} is joining by another call; try again`);
  return 'joined';
}

/** Lock order: credential, worker, job, attempt; as a Hello takes them. */
async function revoke(tx: Transaction, workerId: string, reason: string): Promise<Revocation | null> {
  const known = await tx.worker.findUnique({ where: { id: workerId }, select: { id: true } });
  if (known === null) {
    const revoked = await tx.$executeRaw`update worker_credential set revoked_at = coalesce(revoked_at, clock_timestamp()) where worker_id = ${workerId}`;
    return revoked === 0 ? null : { worker: null, releasedJobs: 0 };
  }
  await tx.$executeRaw`
    insert into worker_credential (worker_id, secret_hash, revoked_at) values (${workerId}, '', clock_timestamp())
    on conflict (worker_id) do update set revoked_at = coalesce(worker_credential.revoked_at, clock_timestamp())`;
  await tx.$executeRaw`
    update worker set session_id = null, replica_id = null, credit = 0, status = 'offline', cordoned = true, cordon_reason = ${reason}, drain = null, drain_deadline = null
    where id = ${workerId}`;
  const releasedJobs = await takeBack(tx, workerId);
  await announce(tx, `revoked:${workerId}`);
  await announce(tx, 'schedule');
  return { worker: workerRecord(await tx.worker.findUniqueOrThrow({ where: { id: workerId } })), releasedJobs };
}

async function takeBack(tx: Transaction, workerId: string): Promise<number> {
  const live = await tx.attempt.findMany({ where: { workerId, status: { not: 'finished' } }, orderBy: { jobId: 'asc' } });
  let released = 0;
  for (const { jobId, id: attemptId, epoch } of live) {
    // Nobody failed: it counts against no budget.
    if ((await endAttempt(tx, { jobId, attemptId, epoch }, { outcome: 'stopped', failure: null, after: afterStop })) !== 'applied') continue;
    await insertEvents(tx, jobId, [{ level: 'info', type: 'message', message: 'The job was taken back: its worker was revoked' }]);
    released++;
  }
  return released;
}
