import pg from 'pg';
import { isUnreachable } from './database-errors';

test('a query on a client whose connection has broken says that the database does not answer', async () => {
  const client = new pg.Client({ host: '127.0.0.1', port: 1 });
  expect(isUnreachable(await failure(client.connect()))).toBe(true);
  // A transaction that goes on with the client it was given: pg says so without a code.
  const later = await failure(client.query('select 1'));
  expect((later as Error).message).toMatch(/not queryable/);
  expect(isUnreachable(later)).toBe(true);
  expect(isUnreachable(new Error('column "x" does not exist'))).toBe(false);
});

function failure(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => null,
    (error: unknown) => error,
  );
}
