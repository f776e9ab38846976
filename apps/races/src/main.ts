import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { silentLogger } from '@tunefleet/foundation';
import { startEmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { migrateDatabase } from '@tunefleet/store-prisma';
import { createDatabase, stopOnSignal } from '@tunefleet/testing';
import { RaceFailure, runRaces, type RacesOptions } from './run-races';

const HELP = `Forced races of everything that can happen to a job, on PostgreSQL.

  --races N       so many (default 1000)
  --seed N        the row of random numbers (default: a fresh one)
  --from N        number of the first race (default 0)
  --pair a,b      only these two against each other
  --lanes N       databases side by side (default 2)
`;

const { values } = parseArgs({
  options: { races: { type: 'string', default: '1000' }, seed: { type: 'string' }, from: { type: 'string', default: '0' }, pair: { type: 'string' }, lanes: { type: 'string', default: '2' }, help: { type: 'boolean' } },
});
if (values.help === true) process.stdout.write(HELP);
else process.exitCode = await run();

async function run(): Promise<number> {
  const races = whole(values.races, 'races');
  const seed = values.seed === undefined ? Date.now() % 1_000_000_000 : whole(values.seed, 'seed');
  const [one, other] = values.pair?.split(',').map((name) => name.trim()) ?? [];
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-races-'));
  // What is lost when the power goes is of no interest here. A deadlock is looked for soon, so that one costs little time.
  const starting = startEmbeddedPostgres({ dataDir: join(folder, 'postgres'), logger: silentLogger, settings: { fsync: 'off', synchronous_commit: 'off', deadlock_timeout: '100ms' } });
  const clear = async (): Promise<void> => {
    await (await starting).stop();
    await rm(folder, { recursive: true, force: true });
  };
  const release = stopOnSignal(clear);
  const server = await starting;
  try {
    const template = await createDatabase(server.url);
    await migrateDatabase(template);
    const databaseUrls: string[] = [];
    for (let lane = 0; lane < Math.max(1, Math.min(races, whole(values.lanes, 'lanes'))); lane++) databaseUrls.push(await createDatabase(server.url, template));
    return await report({ seed, races, databaseUrls, from: whole(values.from, 'from'), ...(one === undefined || other === undefined ? {} : { pair: [one, other] as const }) });
  } finally {
    await clear();
    release();
  }
}

async function report(options: RacesOptions): Promise<number> {
  const startedAt = performance.now();
  const seconds = (): number => (performance.now() - startedAt) / 1000;
  let saidAt = 0;
  const onProgress = (done: number): void => {
    if (seconds() - saidAt < 5) return;
    saidAt = seconds();
    process.stderr.write(`${done} of ${options.races} races, ${((seconds() / done) * (options.races - done)).toFixed(0)} s left\n`);
  };
  try {
    const { races, overlapped, pairs, held } = await runRaces({ ...options, onProgress });
    process.stdout.write(`seed ${options.seed}: ${races} races of ${pairs} pairs without a broken rule in ${seconds().toFixed(0)} s; in ${overlapped} the operations were surely in the middle at once\n`);
    process.stdout.write(`  held at ${JSON.stringify(held)}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof RaceFailure)) throw error;
    process.stdout.write(`${error.message}\n`);
    return 1;
  }
}

function whole(text: string, name: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  process.stderr.write(`--${name} must be a whole number from 0 on, not "${text}"\n`);
  process.exit(2);
}
