import type { ArtifactRef } from '@tunefleet/contracts';
import { afterStop } from '@tunefleet/domain-jobs';
import type { JsonObject } from '@tunefleet/foundation';
import type { AttemptKey, FleetAccess, JoinResult, JoinTokenRecord, Revocation, WorkerJoin } from '@tunefleet/ports';
import { endAttempt } from './endings';
import { say } from './events';
import { fenceOf, type Fence } from './fence';
import { plainText } from './storable';
import type { JoinTokenRow, Tables } from './tables';

export function accessMethods(tables: Tables): FleetAccess {
  return { ...joinTokenMethods(tables), ...credentialMethods(tables), ...artifactMethods(tables) };
}

function joinTokenMethods(tables: Tables): Pick<FleetAccess, 'createJoinToken' | 'listJoinTokens' | 'revokeJoinToken' | 'getJoinToken'> {
  return {
    createJoinToken: async ({ expiresInMs, note, ...token }) => {
      const expiresAt = expiresInMs === null ? null : new Date(tables.nowMs() + expiresInMs);
      const row: JoinTokenRow = { ...token, note: note === null ? null : plainText(note), uses: 0, expiresAt, revokedAt: null, lastUsedAt: null, createdAt: tables.now() };
      tables.joinTokens.set(row.id, row);
      return tokenRecord(tables, row);
    },
    listJoinTokens: async (limit) => [...tables.joinTokens.values()].reverse().slice(0, limit).map((row) => tokenRecord(tables, row)),
    revokeJoinToken: async (id) => {
      const row = tables.joinTokens.get(id);
      if (row === undefined) return null;
      const revoked = { ...row, revokedAt: row.revokedAt ?? tables.now() };
      tables.joinTokens.set(id, revoked);
      return tokenRecord(tables, revoked);
    },
    getJoinToken: async (id) => {
      const row = tables.joinTokens.get(id);
      return row === undefined ? null : { ...tokenRecord(tables, row), secretHash: row.secretHash };
    },
  };
}

function tokenRecord(tables: Tables, { secretHash: _hash, revokedAt, ...row }: JoinTokenRow): JoinTokenRecord {
  const isExpired = row.expiresAt !== null && row.expiresAt.getTime() <= tables.nowMs();
  const state = revokedAt !== null ? 'revoked' : isExpired ? 'expired' : row.maxUses !== null && row.uses >= row.maxUses ? 'used_up' : 'usable';
  return { ...row, state };
}

function credentialMethods(tables: Tables): Pick<FleetAccess, 'join' | 'getCredential' | 'revokeWorker'> {
  return {
    join: async (request) => join(tables, request),
    getCredential: async (workerId) => tables.credentials.get(workerId) ?? null,
    revokeWorker: async (workerId, reason) => revoke(tables, workerId, reason === null ? 'revoked' : `revoked: ${plainText(reason)}`),
  };
}

function join(tables: Tables, { workerId, secretHash, joinTokenId, scope }: WorkerJoin): JoinResult {
  const bound = tables.credentials.get(workerId);
  if (bound !== undefined) return bound.revokedAt !== null ? 'revoked' : bound.secretHash === secretHash ? 'again' : 'taken';
  if (joinTokenId !== null) {
    const token = tables.joinTokens.get(joinTokenId);
    if (token === undefined || tokenRecord(tables, token).state !== 'usable') return 'token_spent';
    tables.joinTokens.set(joinTokenId, { ...token, uses: token.uses + 1, lastUsedAt: tables.now() });
  }
  tables.credentials.set(workerId, { workerId, secretHash, scope, revokedAt: null });
  return 'joined';
}

function revoke(tables: Tables, workerId: string, cordonReason: string): Revocation | null {
  const credential = tables.credentials.get(workerId);
  const worker = tables.workers.get(workerId);
  if (credential === undefined && worker === undefined) return null;
  const bound = credential ?? { workerId, secretHash: '', scope: { namePattern: null, labels: null }, revokedAt: null };
  tables.credentials.set(workerId, { ...bound, revokedAt: bound.revokedAt ?? tables.now() });
  if (worker === undefined) return { worker: null, releasedJobs: 0 };
  tables.changeWorker(workerId, { sessionId: null, replicaId: null, credit: 0, status: 'offline', cordoned: true, cordonReason, drain: null, drainDeadline: null });
  let releasedJobs = 0;
  for (const { jobId, id: attemptId, epoch } of tables.liveOn(workerId)) {
    // Nobody failed: it counts against no budget.
    if (endAttempt(tables, { jobId, attemptId, epoch }, { outcome: 'stopped', failure: null, after: afterStop }) !== 'applied') continue;
    say(tables, jobId, 'The job was taken back: its worker was revoked');
    releasedJobs++;
  }
  tables.announce(`revoked:${workerId}`);
  tables.announce('schedule');
  return { worker: tables.workers.get(workerId) ?? null, releasedJobs };
}

function artifactMethods(tables: Tables): Pick<FleetAccess, 'inputsOf' | 'isHeldBy' | 'noteUpload' | 'missingUploads' | 'unpublishedBytes'> {
  return {
    inputsOf: async (workerId, key) => {
      const fence = heldBy(tables, workerId, key);
      if (fence === null) return null;
      const { resumeCheckpointId } = fence.attempt;
      const resume = resumeCheckpointId === null ? [] : (tables.checkpoints.get(resumeCheckpointId)?.artifacts ?? []);
      return { workerSpec: (fence.job.workerSpec ?? {}) as JsonObject, resume };
    },
    isHeldBy: async (workerId, key) => heldBy(tables, workerId, key) !== null,
    noteUpload: async (workerId, key, { sha256, bytes }) => {
      if (heldBy(tables, workerId, key) === null) return false;
      tables.uploads.set(key.jobId, (tables.uploads.get(key.jobId) ?? new Map<string, number>()).set(sha256, bytes));
      return true;
    },
    missingUploads: async (jobId, artifacts): Promise<ArtifactRef[]> => artifacts.filter(({ sha256, bytes }) => tables.uploads.get(jobId)?.get(sha256) !== bytes),
    unpublishedBytes: async (jobId) => {
      const published = new Set(tables.checkpointsOf(jobId).flatMap(({ artifacts }) => artifacts.map(({ sha256 }) => sha256)));
      return [...(tables.uploads.get(jobId) ?? [])].reduce((sum, [sha256, bytes]) => (published.has(sha256) ? sum : sum + bytes), 0);
    },
  };
}

/** Null: the attempt is not live, or not the worker's own in its present boot. */
function heldBy(tables: Tables, workerId: string, key: AttemptKey): Fence | null {
  const fence = fenceOf(tables, key);
  const isOwn = fence?.attempt.workerId === workerId && fence.attempt.workerBootId === tables.workers.get(workerId)?.bootId;
  return fence?.live === true && isOwn ? fence : null;
}
