import { brokenStores } from './broken-stores';
import { faultKinds } from './fault-counts';
import { scenarioOf, type Scenario } from './scenario';
import { Simulation, SimulationFailure, type Outcome } from './simulation';

// Every world runs the production scheduler, loops, sessions and agents. A failure's message holds the seed, the last events and the command that
// shows it again; `docs/develop/simulation.md` says how to read it.

const SHORT = { short: true };
/** Seeds that have found something once, or cover what others do not. */
const FIXED = [2, 5, 8, 11, 13];
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

test('hundreds of workers that come up at once', async () => {
  const { attempts } = await new Simulation({ ...scenarioOf(8, { workers: 200 }), activeMs: 45_000, jobsPerSecond: 4, faultsPerSecond: 0.5, jobs: { stepsMax: 4, stepMsMax: 1_000, dependent: 0.1, ranked: 0.3 } }).run();
  expect(attempts['succeeded']).toBeGreaterThan(0);
}, 120_000);

/** Busy, long, with jobs of all classes, so that every rule has its occasion. */
const crowded: Partial<Scenario> = {
  ...{ replicas: 2, teams: ['one', 'two'].map((name) => ({ name, weight: 1, runningJobs: null })), activeMs: 60 * 60_000, settleMs: 3_600_000, userActsPerSecond: 0.02, faultsPerSecond: 0.05 },
  ...{ jobsPerSecond: 0.05, jobs: { stepsMax: 40, stepMsMax: 8_000, dependent: 0.1, ranked: 0.3 }, models: 1 },
};

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
