import type { ArtifactRef } from '@tunefleet/contracts';
import type { JsonObject } from '@tunefleet/foundation';
import type { AttemptKey } from './fleet-store';
import type { WorkerRecord } from './records';

/** What a worker may call itself and offer; `*` in a pattern stands for any text. */
export interface WorkerScope {
  /** Null: any name. */
  readonly namePattern: string | null;
  /** Label names with patterns of their values; null: any labels. */
  readonly labels: Readonly<Record<string, string>> | null;
}

export interface JoinTokenRecord {
  readonly id: string;
  readonly note: string | null;
  /** Null: no bound. */
  readonly maxUses: number | null;
  readonly uses: number;
  readonly scope: WorkerScope;
  /** By the database clock. */
  readonly state: 'usable' | 'revoked' | 'expired' | 'used_up';
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
  readonly createdAt: Date;
}

export interface NewJoinToken {
  readonly id: string;
  /** SHA-256, lower-case hexadecimal; the secret itself is never stored. */
  readonly secretHash: string;
  readonly note: string | null;
  readonly maxUses: number | null;
  /** Null: never. */
  readonly expiresInMs: number | null;
  readonly scope: WorkerScope;
}

export interface WorkerCredentialRecord {
  readonly workerId: string;
  readonly secretHash: string;
  readonly scope: WorkerScope;
  readonly revokedAt: Date | null;
}

export interface WorkerJoin {
  readonly workerId: string;
  readonly secretHash: string;
  /** Null: by the token of the environment, which has no bounds. */
  readonly joinTokenId: string | null;
  readonly scope: WorkerScope;
}

/**
 * `joined`: the id is bound to the secret now; `again`: it was already, and no use of the token was spent; `taken`: it is bound to another
 * secret; `revoked`: the id is barred for ever; `token_spent`: the token has no use left, has expired or was revoked.
 */
export type JoinResult = 'joined' | 'again' | 'taken' | 'revoked' | 'token_spent';

export interface Revocation {
  /** Null: it had joined but never connected. */
  readonly worker: WorkerRecord | null;
  /** Jobs taken back from it. */
  readonly releasedJobs: number;
}

/** Who may speak for a worker, and what a worker may touch. */
export interface FleetAccess {
  createJoinToken(token: NewJoinToken): Promise<JoinTokenRecord>;
  /** Newest first. */
  listJoinTokens(limit: number): Promise<readonly JoinTokenRecord[]>;
  /** Workers that have joined with it stay. Null: no such token. */
  revokeJoinToken(id: string): Promise<JoinTokenRecord | null>;
  getJoinToken(id: string): Promise<(JoinTokenRecord & { readonly secretHash: string }) | null>;

  /** Spends one use of the token with the binding, in one transaction. */
  join(join: WorkerJoin): Promise<JoinResult>;
  getCredential(workerId: string): Promise<WorkerCredentialRecord | null>;
  /**
   * Bars the id for ever: ends its session, takes its jobs back without counting a failure, cordons it. Announces `revoked:<id>`. Doing it
   * again changes nothing. Null: no such worker.
   */
  revokeWorker(workerId: string, reason: string | null): Promise<Revocation | null>;

  /** What the worker may read for a live attempt of its own; null: it is not live, or not its own. */
  inputsOf(workerId: string, key: AttemptKey): Promise<AttemptInputs | null>;
  isHeldBy(workerId: string, key: AttemptKey): Promise<boolean>;
  /** Notes that the bytes were sent for the attempt's job. False when the attempt is not live, or not the worker's own. */
  noteUpload(workerId: string, key: AttemptKey, upload: Pick<ArtifactRef, 'sha256' | 'bytes'>): Promise<boolean>;
  /** Those of the artifacts that no worker has sent for the job in that size. */
  missingUploads(jobId: string, artifacts: readonly ArtifactRef[]): Promise<readonly ArtifactRef[]>;
  /** Bytes that were sent for the job and are in none of its checkpoints. */
  unpublishedBytes(jobId: string): Promise<number>;
}

export interface AttemptInputs {
  readonly workerSpec: JsonObject;
  /** Of the checkpoint it resumes from. */
  readonly resume: readonly ArtifactRef[];
}
