import { brokenStores, SHARED } from './broken-stores';
import { faultKinds } from './fault-counts';
import { scenarioOf, type Scenario } from './scenario';
import { Simulation, SimulationFailure, type Outcome } from './simulation';

// Every world runs the production scheduler, loops, sessions and agents. A failure's message holds the seed, the last events and the command that
// shows it again; `docs/develop/simulation.md` says how to read it.

const SHORT = { short: true };
/** Seeds that have found something once, or cover what others do not. */
const FIXED = [5, 8, 11, 14];
const fresh = Array.from({ length: 2 }, (_, index) => (Date.now() + index) % 1_000_000_000);

const outcomes = new Map<number, Promise<Outcome>>();
function outcomeOf(seed: number): Promise<Outcome> {
  const outcome = outcomes.get(seed) ?? new Simulation(scenarioOf(seed, SHORT)).run();
  outcomes.set(seed, outcome);
  return outcome;
}

test.each([...FIXED, ...fresh])('seed %d: no rule is broken', async (seed) => {
  const { jobs, events } = await outcomeOf(seed);
  expect(events).toBeGreaterThan(1_000);
  expect(Object.keys(jobs).every((status) => ['succeeded', 'failed', 'cancelled'].includes(status))).toBe(true);
}, 120_000);

test('between them the fixed seeds have every kind of fault', async () => {
  const happened = new Set<string>();
  for (const seed of FIXED) for (const [kind, count] of Object.entries((await outcomeOf(seed)).faults)) if (count > 0) happened.add(kind);
  expect(faultKinds.filter((kind) => !happened.has(kind))).toEqual([]);
}, 120_000);

test('a seed says everything: two runs of one agree in every change', async () => {
  expect(await new Simulation(scenarioOf(5, SHORT)).run()).toEqual(await outcomeOf(5));
}, 120_000);

test('teams of weights 1, 1 and 2 that always have jobs waiting get their shares of the workers, whatever breaks', async () => {
  const teams = [1, 1, 2].map((weight, index) => ({ name: `team-${index}`, weight, runningJobs: null }));
  const saturated: Partial<Scenario> = {
    // Each team submits more than the half of what the fleet can do.
    ...{ teams, sharing: null, replicas: 2, activeMs: 30 * 60_000, models: 2, jobsPerSecond: 0.4, jobs: { stepsMax: 8, stepMsMax: 8_000, dependent: 0, ranked: 0 } },
    ...{ userActsPerSecond: 0, faultsPerSecond: 0.02, outagesPerSecond: 0.004, cordonedMs: 120_000, cancelsRest: true, killsHung: true },
  };
  const { heldSeconds, faults } = await new Simulation({ ...scenarioOf(11, { workers: 6 }), ...saturated }).run();
  const total = Object.values(heldSeconds).reduce((sum, seconds) => sum + seconds, 0);
  expect(total).toBeGreaterThan(6_000);
  for (const kind of ['worker killed', 'replica killed', 'engine crashed']) expect(faults[kind]).toBeGreaterThan(0);
  for (const { name, weight } of teams) expect(Math.abs((heldSeconds[name] ?? 0) / total / (weight / 4) - 1)).toBeLessThan(0.05);
}, 120_000);

/** Busy, long, with jobs of all classes, so that every rule has its occasion. */
const crowded: Partial<Scenario> = {
  ...{ replicas: 2, teams: ['one', 'two'].map((name) => ({ name, weight: 1, runningJobs: null })), activeMs: 60 * 60_000, settleMs: 3_600_000, userActsPerSecond: 0.02, faultsPerSecond: 0.05 },
  ...{ jobsPerSecond: 0.05, jobs: { stepsMax: 40, stepMsMax: 8_000, dependent: 0.1, ranked: 0.3 }, models: 1 },
};

test('a crowd that shares, whatever breaks', async () => {
  const { shared, jobs } = await new Simulation({ ...scenarioOf(9, { workers: 5 }), ...crowded, ...SHARED, activeMs: 12 * 60_000, faultsPerSecond: 0.03, settleMs: 24 * 3_600_000 }).run();
  expect(shared).toBeGreaterThan(30);
  expect(jobs['succeeded']).toBeGreaterThan(30);
}, 120_000);

test('hundreds of workers that come up at once', async () => {
  const rush: Partial<Scenario> = { activeMs: 30_000, jobsPerSecond: 4, faultsPerSecond: 0.5, outagesPerSecond: 0.02, killsHung: true, jobs: { stepsMax: 4, stepMsMax: 1_000, dependent: 0.1, ranked: 0.3 } };
  const { attempts } = await new Simulation({ ...scenarioOf(8, { workers: 200 }), ...rush }).run();
  expect(attempts['succeeded']).toBeGreaterThan(0);
}, 120_000);

test.each(brokenStores)('a store that $name is caught', async ({ seen, sabotage, scenario }) => {
  const run = new Simulation({ ...scenarioOf(9, { workers: 5 }), ...crowded, ...scenario }, sabotage).run();
  const failure: unknown = await run.then(
    () => null,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(SimulationFailure);
  expect((failure as Error).message).toMatch(seen);
  expect((failure as Error).message).toMatch(/seed 9, virtual time [\d.]+ s, event \d+: [^]*the last events:[^]*again: npx nx run simulation:run --seed=9/);
}, 120_000);
