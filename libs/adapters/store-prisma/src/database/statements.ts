import pg from 'pg';
import { Prisma } from '../generated/client';

/**
 * Statements with the parameters of `Prisma.sql`. A Prisma transaction has these two as well, so what takes `Statements` runs in either; straight to
 * the driver one costs a fraction of the CPU time in this process.
 */
export interface Statements {
  $queryRaw<T>(query: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): Promise<T>;
  /** @returns the number of rows changed */
  $executeRaw(query: TemplateStringsArray | Prisma.Sql, ...values: unknown[]): Promise<number>;
}

type Runner = (query: pg.QueryConfig) => Promise<pg.QueryResult>;

const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === pg.types.builtins.INT8 ? (text: string) => BigInt(text) : pg.types.getTypeParser(oid, format as 'text')) as pg.CustomTypesConfig['getTypeParser'],
};
/** Texts that get a name, so that a connection parses each once. Statements put together from parts have few forms; more than this are left unnamed. */
const NAMES_MAX = 500;
const names = new Map<string, string>();

/** Columns as Prisma reads them: bigint as BigInt, times as Date, JSON parsed. */
export function statementsOf(run: Runner): Statements {
  const query = (text: TemplateStringsArray | Prisma.Sql, values: unknown[]): Promise<pg.QueryResult> => {
    const sql = text instanceof Prisma.Sql ? text : Prisma.sql(text, ...(values as Prisma.Sql['values']));
    const name = nameOf(sql.text);
    return run({ text: sql.text, values: sql.values, types, ...(name === undefined ? {} : { name }) });
  };
  return {
    $queryRaw: async <T>(text: TemplateStringsArray | Prisma.Sql, ...values: unknown[]) => (await query(text, values)).rows as T,
    $executeRaw: async (text, ...values) => (await query(text, values)).rowCount ?? 0,
  };
}

function nameOf(text: string): string | undefined {
  const known = names.get(text);
  if (known !== undefined || names.size >= NAMES_MAX) return known;
  const name = `t${names.size + 1}`;
  names.set(text, name);
  return name;
}
