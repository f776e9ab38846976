import { errorCode } from '@tunefleet/foundation';

/** Exit codes of every command; scripts rely on them (docs/guide). */
export const EXIT = {
  ok: 0,
  /** The thing asked for was not done: a job failed, the server refused or broke. */
  failed: 1,
  /** Wrong arguments, or a request that can never succeed as written. */
  usage: 2,
  /** Nothing answers, or the key is not accepted. */
  unreachable: 3,
  notFound: 4,
  /** Ctrl-C, as shells report it: 128 + SIGINT. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export function exitCodeOf(error: unknown): ExitCode {
  switch (errorCode(error)) {
    case 'invalid_input':
    case 'incompatible_artifact':
      return EXIT.usage;
    case 'unavailable':
    case 'unauthenticated':
    case 'permission_denied':
      return EXIT.unreachable;
    case 'not_found':
      return EXIT.notFound;
    case 'cancelled':
      return EXIT.interrupted;
    default:
      return EXIT.failed;
  }
}
