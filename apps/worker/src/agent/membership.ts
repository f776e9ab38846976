import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { fleet } from '@tunefleet/contracts';
import type { Logger } from '@tunefleet/foundation';
import { loadCredential } from './credential';
import type { WorkerIdentity } from './identity';

export interface MembershipOptions {
  readonly client: Pick<fleet.FleetClient, 'join'>;
  /** Null: the worker must have joined before. */
  readonly joinToken: string | null;
  readonly workerDir: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly logger: Logger;
  /** Reads the credential from the folder, or makes it; a simulation has no folders. */
  readonly load?: typeof loadCredential;
}

/** `joined`: try again with the credential. `refused`: asking again would have the same answer. `later`: nobody answered, or not now. */
export type JoinOutcome = { readonly how: 'joined' } | { readonly how: 'refused'; readonly reason: string } | { readonly how: 'later'; readonly reason: string };

const JOIN_TIMEOUT_MS = 10_000;
const FINAL: ReadonlySet<number> = new Set([status.UNAUTHENTICATED, status.PERMISSION_DENIED, status.INVALID_ARGUMENT, status.UNIMPLEMENTED]);

/** The worker's credential, shown with every call, and how it comes to be known to the control plane: by a join token, once. */
export class Membership {
  /** Of every call but the join; filled by `open`. */
  readonly metadata = new Metadata();
  private secret = '';
  private workerId = '';
  private isJoined = true;

  constructor(private readonly options: MembershipOptions) {}

  /** @throws invalid_input when the credential cannot be read */
  async open({ workerId }: WorkerIdentity): Promise<void> {
    const { secret, isNew } = await (this.options.load ?? loadCredential)(this.options.workerDir);
    this.workerId = workerId;
    this.secret = secret;
    this.isJoined = !isNew;
    this.metadata.set('authorization', `Bearer ${workerId}.${secret}`);
  }

  /** A new credential has to be made known before a session is tried. */
  get needsJoin(): boolean {
    return !this.isJoined;
  }

  /** The control plane does not know the credential (any more): its record is another one, or the answer to the join was lost. */
  forget(): void {
    this.isJoined = false;
  }

  async join(signal: AbortSignal): Promise<JoinOutcome> {
    const { client, joinToken, name, labels, logger } = this.options;
    if (joinToken === null) return { how: 'refused', reason: 'this worker has not joined: set TUNEFLEET_WORKER_TOKEN to a token of "tunefleet workers tokens create"' };
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${joinToken}`);
    const request: fleet.JoinRequest = { workerId: this.workerId, secret: this.secret, name, labels: { ...labels } };
    const error = await new Promise<ServiceError | null>((resolve) => {
      const call = client.join(request, metadata, { deadline: Date.now() + JOIN_TIMEOUT_MS }, (failure) => {
        signal.removeEventListener('abort', cancel);
        resolve(failure);
      });
      const cancel = (): void => call.cancel();
      signal.addEventListener('abort', cancel, { once: true });
    });
    if (error !== null) return { how: FINAL.has(error.code) ? 'refused' : 'later', reason: error.code === status.UNIMPLEMENTED ? 'the control plane is older than this worker: update it first' : error.details };
    this.isJoined = true;
    logger.info({ workerId: this.workerId }, 'joined the fleet');
    return { how: 'joined' };
  }
}
