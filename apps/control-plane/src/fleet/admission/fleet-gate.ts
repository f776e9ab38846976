import type { Metadata } from '@grpc/grpc-js';
import { assertNever, isTunefleetError, TunefleetError, type Clock } from '@tunefleet/foundation';
import type { FleetAccess, WorkerScope } from '@tunefleet/ports';
import type { JoinInput } from '../worker-input';
import { FailedJoins, type FailedJoinsRule } from './failed-joins';
import { anyWorker, outsideScope, type ClaimedIdentity } from './scope';
import { hashSecret, isSameText, isSecret, parseShown } from './secrets';

export interface FleetGateOptions {
  /** Lets any number of workers join; null: only join tokens do. */
  readonly sharedToken: string | null;
  readonly failedJoins?: FailedJoinsRule;
}

/** The worker that a call comes from, as its credential says. */
export interface WorkerCaller {
  readonly workerId: string;
  readonly scope: WorkerScope;
}

type Access = Pick<FleetAccess, 'getCredential' | 'getJoinToken' | 'join'>;

/** Longer ones are refused unread. */
const BEARER_CHARS_MAX = 400;
const HOW_TO_JOIN = 'let it join with a token of "tunefleet workers tokens create", in TUNEFLEET_WORKER_TOKEN';

/** Decides who may speak for a worker. No message says more than whoever asks has shown to know, and none repeats a secret. */
export class FleetGate {
  private readonly failed: FailedJoins;

  constructor(
    private readonly options: FleetGateOptions,
    private readonly access: Access,
    clock: Pick<Clock, 'monotonic'>,
  ) {
    this.failed = new FailedJoins(clock, options.failedJoins);
  }

  /** @throws unauthenticated; permission_denied once the worker is revoked */
  async identify(metadata: Metadata): Promise<WorkerCaller> {
    const bearer = bearerOf(metadata);
    const { sharedToken } = this.options;
    if (sharedToken !== null && isSameText(bearer, sharedToken)) {
      throw new TunefleetError('unauthenticated', 'this worker shows the token of the fleet with its session, as releases did before workers had credentials of their own: update the worker', { reason: 'worker_too_old' });
    }
    const shown = parseShown(bearer);
    const credential = shown === null ? null : await this.access.getCredential(shown.id);
    if (shown === null || credential === null || !isSecret(shown.secret, credential.secretHash)) {
      throw new TunefleetError('unauthenticated', `this control plane does not know the worker's credential: ${HOW_TO_JOIN}`);
    }
    if (credential.revokedAt !== null) throw revoked(shown.id);
    return { workerId: shown.id, scope: credential.scope };
  }

  /** @throws unauthenticated, permission_denied, conflict; capacity after too many failures from the address */
  async join(request: JoinInput, metadata: Metadata, address: string): Promise<void> {
    this.failed.requireFew(address);
    try {
      await this.admit(request, bearerOf(metadata));
    } catch (error) {
      if (isTunefleetError(error) && error.code !== 'unavailable') this.failed.add(address);
      throw error;
    }
  }

  private async admit(request: JoinInput, bearer: string): Promise<void> {
    const { joinTokenId, scope } = await this.tokenOf(bearer);
    requireScope(request, scope);
    const result = await this.access.join({ workerId: request.workerId, secretHash: hashSecret(request.secret), joinTokenId, scope });
    switch (result) {
      case 'joined':
      case 'again':
        return;
      case 'revoked':
        throw revoked(request.workerId);
      case 'taken':
        throw new TunefleetError('permission_denied', `worker ${request.workerId} has joined with another credential: start with an empty worker folder to join as a new one`, { reason: 'worker_taken' });
      case 'token_spent':
        throw new TunefleetError('permission_denied', 'the join token has expired, was revoked or has no use left: make another with "tunefleet workers tokens create"', { reason: 'token_spent' });
      default:
        assertNever(result, 'result of a join');
    }
  }

  private async tokenOf(bearer: string): Promise<{ readonly joinTokenId: string | null; readonly scope: WorkerScope }> {
    const { sharedToken } = this.options;
    if (sharedToken !== null && isSameText(bearer, sharedToken)) return { joinTokenId: null, scope: anyWorker };
    const shown = parseShown(bearer);
    const token = shown === null ? null : await this.access.getJoinToken(shown.id);
    if (shown === null || token === null || !isSecret(shown.secret, token.secretHash)) {
      throw new TunefleetError('unauthenticated', `the join token is missing or wrong: ${HOW_TO_JOIN}`);
    }
    return { joinTokenId: token.id, scope: token.scope };
  }
}

/** @throws permission_denied when the worker claims to be another one, or more than its token allowed */
export function requireOwnHello(caller: WorkerCaller, hello: ClaimedIdentity & { readonly workerId: string }): void {
  if (hello.workerId !== caller.workerId) {
    throw new TunefleetError('permission_denied', `the credential is that of ${caller.workerId}: it cannot speak for ${hello.workerId}`, { reason: 'not_its_id' });
  }
  requireScope(hello, caller.scope);
}

function requireScope(claim: ClaimedIdentity, scope: WorkerScope): void {
  const problem = outsideScope(claim, scope);
  if (problem !== null) throw new TunefleetError('permission_denied', `the worker's join token does not allow it: ${problem}`, { reason: 'outside_scope' });
}

function revoked(workerId: string): TunefleetError {
  return new TunefleetError('permission_denied', `worker ${workerId} was revoked: start with an empty worker folder and a join token to come back as a new one`, { reason: 'worker_revoked' });
}

const SCHEME = 'Bearer ';

/** Empty: none, or none that could be one. */
function bearerOf(metadata: Metadata): string {
  const [header] = metadata.get('authorization');
  if (typeof header !== 'string' || !header.startsWith(SCHEME) || header.length > BEARER_CHARS_MAX) return '';
  return header.slice(SCHEME.length);
}
