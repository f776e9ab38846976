import { Controller, Get, Inject, Param, Post } from '@nestjs/common';
import {
  createWorkerTokenSchema,
  newWorkerTokenSchema,
  revokedWorkerSchema,
  revokeWorkerSchema,
  workerTokenListSchema,
  workerTokenSchema,
  type NewWorkerTokenView,
  type RevokedWorkerView,
  type WorkerTokenView,
} from '@tunefleet/contracts';
import { newId, TunefleetError, type Logger } from '@tunefleet/foundation';
import type { FleetAccess, JoinTokenRecord } from '@tunefleet/ports';
import type { z } from 'zod';
import { hashSecret, newSecret } from '../fleet/admission';
import { Operation } from '../http/operation';
import { unixSeconds, unixSecondsOrNull } from '../http/time';
import { ValidBody } from '../http/zod-pipe';
import { FLEET_ACCESS, LOGGER } from '../tokens';

const LISTED_MAX = 100;

/** Who may join the fleet, and who may no longer be of it. */
@Controller('api/v1/workers')
export class WorkerAccessController {
  constructor(
    @Inject(FLEET_ACCESS) private readonly access: Pick<FleetAccess, 'createJoinToken' | 'listJoinTokens' | 'revokeJoinToken' | 'revokeWorker'>,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  @Post('tokens')
  @Operation('Make a token by which workers join; it is shown this once', { answer: newWorkerTokenSchema })
  async create(@ValidBody(createWorkerTokenSchema) { note, uses, expires_in_seconds: seconds, name, labels }: z.output<typeof createWorkerTokenSchema>): Promise<NewWorkerTokenView> {
    const [id, secret] = [newId('joinToken'), newSecret()];
    const record = await this.access.createJoinToken({
      id,
      secretHash: hashSecret(secret),
      note: note ?? null,
      maxUses: uses === 'any' ? null : uses,
      expiresInMs: seconds === 'never' ? null : seconds * 1_000,
      scope: { namePattern: name ?? null, labels: labels ?? null },
    });
    this.logger.info({ tokenId: id, uses, expiresInSeconds: seconds }, 'join token made');
    return { ...tokenView(record), token: `${id}.${secret}` };
  }

  @Get('tokens')
  @Operation('List join tokens, the newest hundred', { answer: workerTokenListSchema })
  async list() {
    return { object: 'list' as const, data: (await this.access.listJoinTokens(LISTED_MAX)).map(tokenView), has_more: false as const };
  }

  @Post('tokens/:id/revoke')
  @Operation('Let nobody join with a token any more; workers that have stay', { answer: workerTokenSchema })
  async revokeToken(@Param('id') id: string): Promise<WorkerTokenView> {
    const record = await this.access.revokeJoinToken(id);
    if (record === null) throw new TunefleetError('not_found', `no such token: '${id.slice(0, 40)}'. GET /api/v1/workers/tokens lists those there are`, { param: 'id' });
    this.logger.info({ tokenId: id }, 'join token revoked');
    return tokenView(record);
  }

  @Post(':id/revoke')
  @Operation('Bar a worker for ever: its connection ends and its job goes on elsewhere', { answer: revokedWorkerSchema })
  async revokeWorker(@Param('id') id: string, @ValidBody(revokeWorkerSchema) body: z.output<typeof revokeWorkerSchema>): Promise<RevokedWorkerView> {
    const revoked = await this.access.revokeWorker(id, body?.reason ?? null);
    if (revoked === null) throw new TunefleetError('not_found', `no such worker: '${id.slice(0, 100)}'. GET /api/v1/workers lists those there are`, { param: 'id' });
    this.logger.warn({ workerId: id, releasedJobs: revoked.releasedJobs }, 'worker revoked');
    return { id, object: 'worker.revoked', revoked: true, released_jobs: revoked.releasedJobs };
  }
}

function tokenView(token: JoinTokenRecord): WorkerTokenView {
  const { namePattern, labels } = token.scope;
  return {
    id: token.id,
    object: 'worker_token',
    note: token.note,
    state: token.state,
    uses: token.uses,
    max_uses: token.maxUses,
    name: namePattern,
    labels: labels === null ? null : { ...labels },
    created_at: unixSeconds(token.createdAt),
    expires_at: unixSecondsOrNull(token.expiresAt),
    last_used_at: unixSecondsOrNull(token.lastUsedAt),
  };
}
