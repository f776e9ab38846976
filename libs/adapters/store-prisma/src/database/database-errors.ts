/**
 * Reads PostgreSQL's and Prisma's error codes out of whatever was thrown: a Prisma error, a driver error inside it, or a plain
 * error of the pg client.
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
function codesOf(error: unknown): Set<string> {
  const codes = new Set<string>();
  const seen = new Set<unknown>();
  const visit = (value: unknown, depth: number): void => {
    if (value === null || typeof value !== 'object' || depth > 5 || seen.has(value)) return;
    seen.add(value);
    const record = value as Record<string, unknown>;
    for (const key of ['code', 'originalCode', 'kind']) if (typeof record[key] === 'string') codes.add(record[key]);
    for (const key of ['cause', 'meta', 'driverAdapterError']) visit(record[key], depth + 1);
  };
  visit(error, 0);
  return codes;
}

function hasAny(error: unknown, wanted: readonly string[]): boolean {
  const codes = codesOf(error);
  return wanted.some((code) => codes.has(code));
}

/** Deadlock or serialisation failure: the transaction was undone and can be run again. */
export function isConflict(error: unknown): boolean {
  return hasAny(error, ['40001', '40P01', 'P2034', 'TransactionWriteConflict']);
}

export function isUniqueViolation(error: unknown): boolean {
  return hasAny(error, ['23505', 'P2002', 'UniqueConstraintViolation']);
}

/** Nobody there, going down, or no connection free in time. */
export function isUnreachable(error: unknown): boolean {
  return (
    hasAny(error, ['P1001', 'P1002', 'P1008', 'P1017', 'P2024', 'P2028', 'DatabaseNotReachable', 'ConnectionClosed', 'SocketTimeout', 'TooManyConnections']) ||
    hasAny(error, ['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'ETIMEDOUT', 'EPIPE', '57P01', '57P02', '57P03', '53300', '08006', '08001', '08003']) ||
    (error instanceof Error && /Connection terminated|timeout exceeded when trying to connect|is not queryable/.test(error.message))
  );
}
