/**
 * What attempts that overlap on a worker are charged, in every order in which three can begin and end. Time passes by moving all that has happened into the past.
 * What is charged at the end is compared with what the segments between beginnings and ends come to, and with all that reports on it.
 */
import { silentLogger } from '@tunefleet/foundation';
import type { AttemptKey, AttemptRecord, FleetStore, RecordStore } from '@tunefleet/ports';
import { keyOf, LEASE_MS, StoreSteps } from '@tunefleet/ports/conformance';
import { createDatabase, useDatabase } from '@tunefleet/testing';
import pg from 'pg';
import { migrateDatabase } from '../migrations/migrate-database';
import { openStore, type Store } from '../store';

const done = { result: {}, artifacts: [], resultFiles: [], messages: [] };
const DAY_MS = 86_400_000;
/** Seconds that pass between two events, besides real time. */
const STEP_SECONDS = 60;
const HALF_LIFE_SECONDS = 7 * 86_400;

const serverUrl = useDatabase();

describe('shared use', () => {
  let store: Store;
  let fleet: FleetStore;
  let records: RecordStore;
  let steps: StoreSteps;
  let client: pg.Client;
  beforeAll(async () => {
    const url = await createDatabase(serverUrl());
    await migrateDatabase(url);
    store = openStore({ databaseUrl: url, logger: silentLogger });
    ({ fleet, records } = store);
    steps = await StoreSteps.of(store);
    client = new pg.Client({ connectionString: url });
    await client.connect();
  }, 60_000);
  afterAll(async () => {
    await client.end();
    await store.close();
  });

  let workers = 0;
  /** A worker of its own with free slots. */
  async function freeWorker(slots = 3): Promise<string> {
    const id = `w${++workers}`;
    await steps.credit(id, await steps.worker(id, { slots }), slots);
    return id;
  }

  async function shareable(teamId = steps.teamId): Promise<string> {
    const id = await steps.create({ teamId });
    await steps.admit(id, {}, { sharing: { key: 'k', memoryBytes: 1 } });
    return id;
  }

  async function begin(workerId: string, jobId: string): Promise<AttemptRecord> {
    const beside = (await fleet.listLiveAttempts(workerId)).map((attempt) => attempt.jobId);
    const attempt = await fleet.place(await steps.placement(jobId, workerId, beside), LEASE_MS);
    if (attempt === null) throw new Error(`${jobId} was not placed on ${workerId}`);
    await fleet.acknowledge(keyOf(attempt));
    return attempt;
  }

  const pass = (workerId: string, seconds: number) =>
    client.query('update attempt set assigned_at = assigned_at - make_interval(secs => $2), finished_at = finished_at - make_interval(secs => $2) where worker_id = $1', [workerId, seconds]);

  const chargedTo = async (team: string): Promise<number> => (await records.getTeam(team))?.decayedGpuSeconds ?? NaN;
  const gpuSecondsOf = async ({ jobId, attemptId }: AttemptKey): Promise<number> => (await records.listCompany(jobId)).get(attemptId)?.gpuSeconds ?? NaN;
  let startedMs = 0;
  beforeEach(() => void (startedMs = performance.now()));
  /** Real time of the test may add to it, and is forgotten by decayed usage. */
  const near = (got: number, wanted: number): void => {
    const elapsed = (performance.now() - startedMs) / 1000;
    expect(got).toBeGreaterThan(wanted * 2 ** (-elapsed / HALF_LIFE_SECONDS) - 0.01);
    expect(got).toBeLessThan(wanted + elapsed + 0.01);
  };

  /** All ways to begin jobs 0, 1 and 2, in that order, and to end each: the number of the job, first to begin, then to end it. */
  function sequences(begun: number, live: readonly number[]): number[][] {
    if (begun === 3 && live.length === 0) return [[]];
    const next = [...(begun < 3 ? [{ job: begun, begun: begun + 1, live: [...live, begun] }] : []), ...live.map((job) => ({ job, begun, live: live.filter((each) => each !== job) }))];
    return next.flatMap(({ job, ...rest }) => sequences(rest.begun, rest.live).map((tail) => [job, ...tail]));
  }

  test.each(sequences(0, []).map((sequence) => [sequence.join(' '), sequence] as const))('begun and ended as %s', async (_name, sequence) => {
    const workerId = await freeWorker();
    const names = ['a', 'b', 'c'].map((name) => `${name}-${workers}`);
    const jobs: string[] = [];
    for (const name of names) jobs.push(await shareable((await records.ensureTeam(name)).id));
    const live = new Map<number, AttemptKey>();
    const wanted = [0, 0, 0];
    const ended = new Map<number, AttemptKey>();
    for (const job of sequence) {
      for (const each of live.keys()) wanted[each] = (wanted[each] as number) + STEP_SECONDS / live.size;
      await pass(workerId, STEP_SECONDS);
      const key = live.get(job);
      if (key === undefined) {
        await steps.credit(workerId, undefined, 3);
        live.set(job, keyOf(await begin(workerId, jobs[job] as string)));
        continue;
      }
      live.delete(job);
      ended.set(job, key);
      await fleet.complete(key, done);
      near(await chargedTo(names[job] as string), wanted[job] as number);
    }
    for (const [job, key] of ended) {
      near(await gpuSecondsOf(key), wanted[job] as number);
      // What was charged at the end is what the record says ever after.
      expect(await gpuSecondsOf(key)).toBeCloseTo(await chargedTo(names[job] as string), 3);
    }
    const [from, to] = [new Date(Date.now() - DAY_MS), new Date()].map((date) => date.toISOString().slice(0, 10)) as [string, string];
    let reported = 0;
    for (const [job, name] of names.entries()) {
      const seconds = (await records.usageByDay({ from, to, team: name })).reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0);
      near(seconds, wanted[job] as number);
      reported += seconds;
    }
    const { rows } = await client.query<{ held: number }>(`select sum(extract(epoch from upper(r) - lower(r)))::float8 as held from (
      select unnest(range_agg(tstzrange(assigned_at, finished_at))) as r from attempt where worker_id = $1) held`, [workerId]);
    expect(reported).toBeLessThanOrEqual((rows[0]?.held ?? NaN) + 1e-3);
    near(reported, rows[0]?.held ?? NaN);
  });

  test('what is live is charged as it runs: the same in the account, the run history and the report', async () => {
    const [team, other] = [await records.ensureTeam('live'), await records.ensureTeam('live, too')];
    const workerId = await freeWorker();
    const [first, second] = [await shareable(team.id), await shareable(other.id)];
    const a = keyOf(await begin(workerId, first));
    await pass(workerId, 100);
    await begin(workerId, second);
    await pass(workerId, 50);
    near(await gpuSecondsOf(a), 125);
    const seen = (await fleet.schedulingSnapshot(1)).running.find(({ attemptId }) => attemptId === a.attemptId);
    near(seen?.gpuSeconds ?? NaN, 125);
    const today = new Date().toISOString().slice(0, 10);
    const yesterday = new Date(Date.now() - DAY_MS).toISOString().slice(0, 10);
    near((await records.usageByDay({ from: yesterday, to: today, team: 'live' })).reduce((sum, { gpuSeconds }) => sum + gpuSeconds, 0), 125);
    const { monthGpuSeconds = NaN } = (await records.getTeam('live')) ?? {};
    const { rows } = await client.query<{ month_age: number }>(`select extract(epoch from now() - date_trunc('month', now() at time zone 'utc') at time zone 'utc')::float8 as month_age`);
    const monthAge = rows[0]?.month_age ?? NaN;
    near(monthGpuSeconds, monthAge < 50 ? monthAge / 2 : Math.min(125, monthAge - 25));
    near(seen?.monthGpuSeconds ?? NaN, monthGpuSeconds);
  });

  test('the month is charged its own part: half of it where two shared the worker over its beginning', async () => {
    const team = await records.ensureTeam('month');
    const workerId = await freeWorker();
    const a = keyOf(await begin(workerId, await shareable(team.id)));
    const b = keyOf(await begin(workerId, await shareable(team.id)));
    const { rows } = await client.query<{ age: number }>(
      `update attempt set assigned_at = (date_trunc('month', now() at time zone 'utc') at time zone 'utc') - make_interval(secs => 1000) where worker_id = $1
       returning extract(epoch from now() - date_trunc('month', now() at time zone 'utc') at time zone 'utc')::float8 as age`, [workerId]);
    const age = rows[0]?.age ?? NaN;
    await fleet.complete(a, done);
    near((await records.getTeam('month'))?.monthGpuSeconds ?? NaN, age);
    near(await chargedTo('month'), (age + 1000) / 2);
    await fleet.complete(b, done);
    near((await records.getTeam('month'))?.monthGpuSeconds ?? NaN, age);
    near(await chargedTo('month'), age + 1000);
  });

  test('ends and beginnings at the same time on one worker: no more is charged than the time there was', async () => {
    const team = await records.ensureTeam('race');
    const workerId = await freeWorker(8);
    let live: AttemptKey[] = [];
    for (let round = 0; round < 12; round++) {
      const jobs = [await shareable(team.id), await shareable(team.id)];
      await steps.credit(workerId, undefined, 8);
      const placements = await Promise.all(jobs.map(async (job) => steps.placement(job, workerId, [...live.map(({ jobId }) => jobId), ...jobs])));
      const ends = live.splice(0, round % 3);
      const [placed] = await Promise.all([Promise.all(placements.map((placement) => fleet.place(placement, LEASE_MS))), ...ends.map((key) => fleet.complete(key, done))]);
      live = [...live, ...placed.flatMap((attempt) => (attempt === null ? [] : [keyOf(attempt)]))];
    }
    await Promise.all(live.map((key) => fleet.complete(key, done)));
    const { rows } = await client.query<{ held: number; attempts: number }>(`select sum(extract(epoch from upper(r) - lower(r)))::float8 as held, (select count(*)::int from attempt where worker_id = $1) as attempts from (
      select unnest(range_agg(tstzrange(assigned_at, finished_at))) as r from attempt where worker_id = $1) held`, [workerId]);
    expect(rows[0]?.attempts).toBeGreaterThan(8);
    // To the microsecond of the clock, per attempt, and a decay over some seconds.
    expect(Math.abs((await chargedTo('race')) - (rows[0]?.held ?? NaN))).toBeLessThan(1e-4);
  });

  test('who was beside an attempt, and is; what was taken back was nobody', async () => {
    const other = await records.ensureTeam('neighbours');
    const workerId = await freeWorker();
    const [a, b, c, d] = [await shareable(), await shareable(other.id), await shareable(), await shareable()];
    const [first, second] = [keyOf(await begin(workerId, a)), keyOf(await begin(workerId, b))];
    const third = keyOf(await begin(workerId, c));
    await fleet.complete(second, done);
    await steps.credit(workerId, undefined, 3);
    const placed = await fleet.place(await steps.placement(d, workerId, [a, c]), LEASE_MS);
    if (placed === null) throw new Error('not placed');
    await fleet.revoke(keyOf(placed), 'busy');
    const beside = async ({ jobId, attemptId }: AttemptKey) => (await records.listCompany(jobId)).get(attemptId)?.beside;
    expect(await beside(first)).toEqual([{ jobId: b, teamId: other.id, isLive: false }, { jobId: c, teamId: steps.teamId, isLive: true }]);
    expect(await beside(second)).toEqual([{ jobId: a, teamId: steps.teamId, isLive: false }, { jobId: c, teamId: steps.teamId, isLive: false }]);
    expect(await records.listCompany(d)).toEqual(new Map([[placed.id, { beside: [], gpuSeconds: 0 }]]));
    await fleet.complete(first, done);
    expect(await beside(third)).toEqual([{ jobId: a, teamId: steps.teamId, isLive: false }, { jobId: b, teamId: other.id, isLive: false }]);
    await fleet.complete(third, done);
  });
});
