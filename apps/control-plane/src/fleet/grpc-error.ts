import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { errorMap } from '@tunefleet/contracts';
import { isTunefleetError } from '@tunefleet/foundation';

/** How an error leaves through gRPC. What is not ours says nothing about itself: it may hold anything. */
export function toServiceError(error: unknown): ServiceError {
  const known = isTunefleetError(error);
  const name = known ? errorMap[error.code].grpc : 'INTERNAL';
  const details = known ? error.publicMessage : 'internal error';
  const code = (status as unknown as Record<string, number | undefined>)[name] ?? status.INTERNAL;
  return Object.assign(new Error(details), { code, details, metadata: new Metadata() });
}
