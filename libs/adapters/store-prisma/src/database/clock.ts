import { invariant } from '@tunefleet/foundation';
import { Prisma } from '../generated/client';
import type { Statements } from './statements';

/** Now on the database clock, of which all times of the record are made: replicas' own clocks may differ. */
export async function databaseTime(tx: Statements): Promise<Date> {
  const [row] = await tx.$queryRaw<{ now: Date }[]>`select clock_timestamp() as now`;
  invariant(row !== undefined, 'the database did not tell its time');
  return row.now;
}

/** SQL for now, and so many milliseconds after or before it. */
export const inMs = (ms: number): Prisma.Sql => Prisma.sql`clock_timestamp() + make_interval(secs => ${ms / 1000}::float8)`;
export const agoMs = (ms: number): Prisma.Sql => Prisma.sql`clock_timestamp() - make_interval(secs => ${ms / 1000}::float8)`;
