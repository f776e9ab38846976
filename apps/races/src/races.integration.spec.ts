import { createDatabase, useDatabase } from '@tunefleet/testing';
import { migrateDatabase } from '@tunefleet/store-prisma';
import { brokenStores } from './broken-stores';
import { pairs, RaceFailure, runRaces } from './run-races';

// Real transactions that are made to meet; `docs/develop/races.md` says how. The message of a failure holds the command that runs its race again.

const serverUrl = useDatabase();
let template: string;
beforeAll(async () => {
  template = await createDatabase(serverUrl());
  await migrateDatabase(template);
}, 60_000);
const database = (): Promise<string> => createDatabase(serverUrl(), template);

const FIXED = 1;
const fresh = Date.now() % 1_000_000_000;

test.each([
  [FIXED, 2 * pairs.length],
  [fresh, 136],
])('seed %d, %d races: no rule is broken, and the operations did meet', async (seed, races) => {
  // A fresh seed begins at a pair of its own, so that all have their turn.
  const result = await runRaces({ seed, races, from: seed === FIXED ? 0 : seed % pairs.length, databaseUrls: [await database(), await database()] });
  expect(result.races).toBe(races);
  expect(result.overlapped).toBeGreaterThan(races / 2);
}, 120_000);

test.each(brokenStores)('a store that $name is caught', async ({ pair, seen, sabotage }) => {
  const failure: unknown = await runRaces({ seed: 7, from: 0, races: 60, pair, sabotage, databaseUrls: [await database()] }).then(
    () => null,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(RaceFailure);
  expect((failure as Error).message).toMatch(seen);
  expect((failure as Error).message).toMatch(new RegExp(`seed 7, race \\d+: [^]*broken: [^]*again: npx nx run races:run --seed=7 --from=\\d+ --races=1 --pair="${pair.join(',')}"`));
}, 120_000);
