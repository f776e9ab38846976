import { createHash, timingSafeEqual } from 'node:crypto';
import { createParamDecorator, Inject, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { TeamRecord } from '@tunefleet/ports';
import type { FastifyRequest } from 'fastify';
import type { ControlPlaneConfig } from '../config/config';
import { CONFIG, TEAM } from '../tokens';
import { operationOf } from './operation';

const callers = new WeakMap<object, TeamRecord>();

/** Lets requests with the API key through, on behalf of the key's team. @throws unauthenticated */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  private readonly keyHash: Buffer;

  constructor(
    @Inject(CONFIG) config: ControlPlaneConfig,
    @Inject(TEAM) private readonly team: TeamRecord,
  ) {
    this.keyHash = sha256(config.apiKey);
  }

  canActivate(context: ExecutionContext): boolean {
    if (operationOf(context.getHandler()).public === true) return true;
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    const key = bearerOf(request.headers.authorization);
    // Hashes of equal length are compared in constant time: neither the key's length nor its beginning leaks.
    if (!timingSafeEqual(sha256(key), this.keyHash)) {
      throw new TunefleetError('unauthenticated', 'the API key is not valid. The service keeps its key in secrets.json of its data folder, unless TUNEFLEET_API_KEY sets it');
    }
    callers.set(request, this.team);
    return true;
  }
}

/** The team on whose behalf the request is made. */
export const Caller = createParamDecorator((_data: unknown, context: ExecutionContext): TeamRecord => {
  const team = callers.get(context.switchToHttp().getRequest<FastifyRequest>());
  invariant(team !== undefined, 'a handler asked for the caller of a public endpoint');
  return team;
});

function bearerOf(header: string | undefined): string {
  const key = /^Bearer +(\S+) *$/i.exec(header ?? '')?.[1];
  if (key === undefined) throw new TunefleetError('unauthenticated', 'there is no API key: send the header "Authorization: Bearer <key>"', { reason: 'missing_api_key' });
  return key;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
