import type { ErrorCode } from '@tunefleet/foundation';

interface EdgeError {
  readonly http: number;
  /** gRPC status name. */
  readonly grpc: string;
  /** The API's `error.type`. */
  readonly type: 'invalid_request_error' | 'server_error' | 'requests' | 'insufficient_quota';
  /** The API's `error.code` when the error names no finer reason. */
  readonly apiCode: string | null;
}

/** How each error code leaves the system. The only such table. */
export const errorMap: Readonly<Record<ErrorCode, EdgeError>> = {
  invalid_input: { http: 400, grpc: 'INVALID_ARGUMENT', type: 'invalid_request_error', apiCode: 'invalid_value' },
  incompatible_artifact: { http: 400, grpc: 'INVALID_ARGUMENT', type: 'invalid_request_error', apiCode: 'incompatible_artifact' },
  unauthenticated: { http: 401, grpc: 'UNAUTHENTICATED', type: 'invalid_request_error', apiCode: 'invalid_api_key' },
  permission_denied: { http: 403, grpc: 'PERMISSION_DENIED', type: 'invalid_request_error', apiCode: 'insufficient_permissions' },
  not_found: { http: 404, grpc: 'NOT_FOUND', type: 'invalid_request_error', apiCode: 'not_found' },
  conflict: { http: 409, grpc: 'ABORTED', type: 'invalid_request_error', apiCode: 'conflict' },
  // 400, not 409: SDKs retry every 409 (openai-node does by default), and trying again cannot help.
  illegal_transition: { http: 400, grpc: 'FAILED_PRECONDITION', type: 'invalid_request_error', apiCode: 'illegal_transition' },
  capacity: { http: 429, grpc: 'RESOURCE_EXHAUSTED', type: 'requests', apiCode: 'rate_limit_exceeded' },
  unavailable: { http: 503, grpc: 'UNAVAILABLE', type: 'server_error', apiCode: null },
  lease_lost: { http: 500, grpc: 'FAILED_PRECONDITION', type: 'server_error', apiCode: null },
  worker_lost: { http: 500, grpc: 'UNAVAILABLE', type: 'server_error', apiCode: null },
  out_of_device_memory: { http: 400, grpc: 'RESOURCE_EXHAUSTED', type: 'invalid_request_error', apiCode: 'out_of_device_memory' },
  numerical: { http: 400, grpc: 'INVALID_ARGUMENT', type: 'invalid_request_error', apiCode: 'numerical' },
  cancelled: { http: 400, grpc: 'CANCELLED', type: 'invalid_request_error', apiCode: 'cancelled' },
  invariant: { http: 500, grpc: 'INTERNAL', type: 'server_error', apiCode: null },
};
