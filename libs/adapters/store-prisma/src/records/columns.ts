import { Prisma } from '../generated/client';

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const columnsOf = (table: string, fields: Readonly<Record<string, string>>): Prisma.Sql =>
  Prisma.raw(
    Object.keys(fields)
      .map((field) => `${table}.${snakeCase(field)} as "${field}"`)
      .join(', '),
  );

/** All columns of a table that the statement calls `j`, under the names that Prisma's methods give them: the row is a `Job`. The schema maps every field to its name in snake case. */
export const jobColumns = columnsOf('j', Prisma.JobScalarFieldEnum);
/** The same of `a`; the row is an `Attempt`. */
export const attemptColumns = columnsOf('a', Prisma.AttemptScalarFieldEnum);
export const fileColumns = columnsOf('f', Prisma.FileScalarFieldEnum);
export const datasetVersionColumns = columnsOf('d', Prisma.DatasetVersionScalarFieldEnum);
export const workerColumns = columnsOf('w', Prisma.WorkerScalarFieldEnum);
