import { parseArgs } from 'node:util';
import { scenarioOf, type Scenario, type ScenarioOptions } from './scenario';
import { Simulation, SimulationFailure } from './simulation';

const HELP = `Production code of the orchestrator on a virtual clock, with faults.

  --seed N        this world only, again
  --seeds N       so many worlds, from --from on (default 10)
  --from N        first seed (default: a fresh one)
  --minutes M     as many worlds as fit into so many minutes
  --workers N     so many workers in each, instead of what the seed says
  --short         small worlds of ten minutes, as the tests run them
`;

const { values } = parseArgs({
  options: { seed: { type: 'string' }, seeds: { type: 'string' }, from: { type: 'string' }, minutes: { type: 'string' }, workers: { type: 'string' }, short: { type: 'boolean' }, help: { type: 'boolean' } },
});
if (values.help === true) process.stdout.write(HELP);
else process.exitCode = await run();

async function run(): Promise<number> {
  const options: ScenarioOptions = { short: values.short === true, ...(values.workers === undefined ? {} : { workers: whole(values.workers, 'workers') }) };
  const from = values.seed !== undefined ? whole(values.seed, 'seed') : values.from !== undefined ? whole(values.from, 'from') : Date.now() % 1_000_000_000;
  const untilMs = values.minutes === undefined ? null : performance.now() + 60_000 * Number(values.minutes);
  const seeds = values.seed !== undefined ? 1 : untilMs !== null ? Infinity : whole(values.seeds ?? '10', 'seeds');
  let failed = 0;
  let done = 0;
  for (let seed = from; done < seeds && (untilMs === null || performance.now() < untilMs); seed++, done++) {
    if (!(await one(scenarioOf(seed, options)))) failed++;
  }
  process.stdout.write(`${done - failed} of ${done} worlds without a broken rule\n`);
  return failed === 0 ? 0 : 1;
}

async function one(scenario: Scenario): Promise<boolean> {
  const startedAt = performance.now();
  try {
    const { seed, virtualMs, events, jobs, attempts, shared, faults, fingerprint } = await new Simulation(scenario).run();
    const seconds = (performance.now() - startedAt) / 1000;
    process.stdout.write(`seed ${seed}: ${scenario.workers} workers, ${scenario.replicas} replicas, ${(virtualMs / 3_600_000).toFixed(1)} h in ${seconds.toFixed(1)} s, ${events} events, fingerprint ${fingerprint}\n`);
    process.stdout.write(`  jobs ${JSON.stringify(jobs)}\n  attempts ${JSON.stringify(attempts)}, ${shared} beside others\n  faults ${JSON.stringify(faults)}\n`);
    return true;
  } catch (error) {
    if (!(error instanceof SimulationFailure)) throw error;
    process.stdout.write(`${error.message}\n`);
    return false;
  }
}

function whole(text: string, name: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  process.stderr.write(`--${name} must be a whole number from 0 on, not "${text}"\n`);
  process.exit(2);
}
