import { sleep } from '@tunefleet/foundation';
import { until } from '@tunefleet/testing';
import { Random } from '../../simulation/src/random';
import { Api } from './api';
import { FaultPlan } from './fault-plan';
import type { FaultName } from './faults';
import { JobWatch } from './job-watch';
import type { ChaosRecord, Reference } from './record/record';
import { checkEvidence, type Verdict } from './record/rules';
import type { Log } from './say';
import { ChaosSystem } from './system/chaos-system';
import { evalTemplate, tuneTemplates, type Template } from './templates';
import { Users } from './users';

export interface ChaosOptions {
  readonly seed: number;
  /** How long faults come; start, undisturbed runs and the end are on top. */
  readonly faultsMs: number;
  readonly betweenFaultsMs: number;
  readonly kinds: readonly FaultName[];
  readonly workers: number;
  readonly leaseSeconds: number;
  /** Folder of the built programs. */
  readonly programs: string;
}

export interface ChaosReport {
  readonly verdicts: readonly Verdict[];
  /** What went wrong besides the rules. */
  readonly troubles: readonly string[];
  readonly faults: ReadonlyMap<string, number>;
  readonly acts: ReadonlyMap<string, number>;
  readonly refusals: ReadonlyMap<string, number>;
  readonly record: ChaosRecord;
  /** With the logs of all processes. */
  readonly dir: string;
}

const UNDISTURBED_MS = 300_000;
/** For everything to end once the faults are over; a fifth failure alone keeps a job waiting for 80 s. */
const SETTLE_MS = 300_000;
const BETWEEN_ACTS_MS = 2_000;

/** Streams of random numbers, one for each who draws. */
const STREAM = { faults: 1, users: 2, replicas: 3 } as const;

/** One run from start to end: undisturbed jobs, then faults and users at once, then peace until all have ended, then the rules. */
export async function runChaos(options: ChaosOptions, log: Log): Promise<ChaosReport> {
  log.say('run', `starting 2 replicas, ${options.workers} workers, PostgreSQL and Redis`);
  const system = await ChaosSystem.start(options);
  log.say('run', `they are up; logs are in ${system.dir}/logs`);
  const watching = new AbortController();
  const watch = new JobWatch(system, log);
  const watched = watch.run(watching.signal);
  try {
    const api = new Api(
      system.replicas.map(({ client }) => client),
      new Random(options.seed, STREAM.replicas),
    );
    const users = new Users(api, new Random(options.seed, STREAM.users), log, { jobsInFlight: options.workers + 2, betweenActsMs: BETWEEN_ACTS_MS }, () => watch.open());
    const { templates, references } = await undisturbed(system, users, watch);
    log.say('run', `undisturbed runs are done; faults for ${Math.round(options.faultsMs / 1000)} s`);
    const plan = new FaultPlan(system, new Random(options.seed, STREAM.faults), log, { kinds: options.kinds, betweenMs: options.betweenFaultsMs });
    const active = new AbortController();
    const both = Promise.all([plan.run(active.signal), users.act(templates, active.signal)]);
    await Promise.race([sleep(options.faultsMs), both]);
    active.abort();
    await both;
    log.say('run', `${plan.total} faults have been and are healed; waiting for ${watch.open().size} jobs`);
    const troubles = [...plan.troubles, ...(await settle(users, watch))];
    for (const { part } of [...system.replicas, ...system.workers]) if (part.deaths > 0) troubles.push(`${part.name} ended by itself ${part.deaths} times after it had been ready`);
    // While something is away, clients are told to try again (503): an answer of 500 says that nobody had thought of it.
    const unforeseen = api.refusals.get('500') ?? 0;
    if (unforeseen > 0) troubles.push(`${unforeseen} requests were answered with 500`);
    const record = await system.record();
    const verdicts = checkEvidence({ record, wishes: users.wishes, references });
    watching.abort();
    await watched;
    const left = await system.stop();
    troubles.push(...left.map(({ program, pid }) => `${program} (${pid}) was still running after the stop`));
    return { verdicts, troubles, record, faults: plan.done, acts: users.acts, refusals: api.refusals, dir: system.dir };
  } catch (error) {
    watching.abort();
    await system.stop().catch(() => []);
    throw error;
  }
}

/** Each template once, with nothing in its way. @throws when one of them does not succeed */
async function undisturbed(system: ChaosSystem, users: Users, watch: JobWatch): Promise<{ templates: Template[]; references: Reference[] }> {
  const client = system.replicas[0]?.client;
  if (client === undefined) throw new Error('there is no replica');
  const references: Reference[] = [];
  const run = async (templates: readonly Template[]): Promise<void> => {
    for (const template of templates) references.push({ template: template.name, jobId: (await users.submit(template)) ?? '' });
    await until('the undisturbed jobs', async () => (await watch.look(), watch.open().size === 0), { timeoutMs: UNDISTURBED_MS, detail: () => watch.describeOpen().join('; ') });
  };
  const tunes = await tuneTemplates(client, system.model);
  await run(tunes);
  const adapter = (await client.adapters.list()).data.find(({ job_id }) => job_id === references[0]?.jobId);
  if (adapter === undefined) throw new Error(`the undisturbed job ${references[0]?.jobId} left no adapter`);
  const evaluation = await evalTemplate(client, system.model, adapter.name);
  await run([evaluation]);
  return { templates: [...tunes, evaluation], references };
}

/** @returns what has not ended */
async function settle(users: Users, watch: JobWatch): Promise<string[]> {
  for (const deadline = performance.now() + SETTLE_MS; performance.now() < deadline; await sleep(500)) {
    await users.resumeAll().catch(() => undefined);
    await watch.look();
    if (watch.open().size === 0) return [];
  }
  return watch.describeOpen().map((job) => `not at an end ${SETTLE_MS / 1000} s after the last fault: ${job}`);
}
