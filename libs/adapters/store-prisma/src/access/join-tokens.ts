import type { FleetAccess, JoinTokenRecord, WorkerScope } from '@tunefleet/ports';
import { databaseTime, inMs } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import type { JoinToken } from '../generated/client';
import { jsonText, plainText } from '../records/mapping';

type JoinTokenMethods = Pick<FleetAccess, 'createJoinToken' | 'listJoinTokens' | 'revokeJoinToken' | 'getJoinToken'>;

export function joinTokenMethods(db: Database): JoinTokenMethods {
  return {
    createJoinToken: ({ id, secretHash, note, maxUses, expiresInMs, scope }) =>
      db.transaction(async (tx) => {
        const expiresAt = expiresInMs === null ? null : new Date((await databaseTime(tx)).getTime() + expiresInMs);
        await tx.$executeRaw`
          insert into join_token (id, secret_hash, note, max_uses, expires_at, name_pattern, labels)
          values (${id}, ${secretHash}, ${note === null ? null : plainText(note)}, ${maxUses}, ${expiresAt}, ${scope.namePattern}, ${scope.labels === null ? null : jsonText(scope.labels)}::jsonb)`;
        return found(tx, id);
      }),

    listJoinTokens: (limit) =>
      db.transaction(async (tx) => {
        const now = await databaseTime(tx);
        const rows = await tx.joinToken.findMany({ orderBy: [{ createdAt: 'desc' }, { id: 'desc' }], take: limit });
        return rows.map((row) => tokenRecord(row, now));
      }),

    revokeJoinToken: (id) =>
      db.transaction(async (tx) => {
        const changed = await tx.$executeRaw`update join_token set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = ${id}`;
        return changed === 0 ? null : found(tx, id);
      }),

    getJoinToken: (id) =>
      db.repeating(async () => {
        const row = await db.prisma.joinToken.findUnique({ where: { id } });
        return row && { ...tokenRecord(row, await databaseTime(db.prisma)), secretHash: row.secretHash };
      }),
  };
}

/** One use of the token, if it has one. */
export async function spendToken(tx: Transaction, id: string): Promise<boolean> {
  const spent = await tx.$executeRaw`
    update join_token set uses = uses + 1, last_used_at = clock_timestamp()
    where id = ${id} and revoked_at is null and (expires_at is null or expires_at > ${inMs(0)}) and (max_uses is null or uses < max_uses)`;
  return spent > 0;
}

export function scopeOf(row: { readonly namePattern: string | null; readonly labels: unknown }): WorkerScope {
  return { namePattern: row.namePattern, labels: row.labels as WorkerScope['labels'] };
}

async function found(tx: Transaction, id: string): Promise<JoinTokenRecord> {
  return tokenRecord(await tx.joinToken.findUniqueOrThrow({ where: { id } }), await databaseTime(tx));
}

function tokenRecord(row: JoinToken, now: Date): JoinTokenRecord {
  const { id, note, maxUses, uses, expiresAt, revokedAt, lastUsedAt, createdAt } = row;
  const isExpired = expiresAt !== null && expiresAt <= now;
  const state = revokedAt !== null ? 'revoked' : isExpired ? 'expired' : maxUses !== null && uses >= maxUses ? 'used_up' : 'usable';
  return { id, note, maxUses, uses, scope: scopeOf(row), state, expiresAt, lastUsedAt, createdAt };
}
