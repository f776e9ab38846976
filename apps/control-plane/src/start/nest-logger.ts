import type { LoggerService } from '@nestjs/common';
import type { Logger } from '@tunefleet/foundation';

/** Nest's own warnings and errors in our log; what it says about its routes is left out. */
export function nestLogger(logger: Logger): LoggerService {
  const nest = logger.child({ part: 'nest' });
  return {
    log: () => undefined,
    debug: () => undefined,
    verbose: () => undefined,
    warn: (message: unknown) => nest.warn({}, String(message)),
    error: (message: unknown, ...details: unknown[]) => nest.error({ details: details.map(String) }, String(message)),
    fatal: (message: unknown, ...details: unknown[]) => nest.error({ details: details.map(String) }, String(message)),
  };
}
