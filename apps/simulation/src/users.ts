import { STOP_GRACE_MS } from '@tunefleet/domain-jobs';
import { errorCode } from '@tunefleet/foundation';
import type { JobQueue, QueueMessage, RecordStore } from '@tunefleet/ports';
import type { Tables } from '@tunefleet/testing/store-memory';
import { DeliveryOrder, type FaultCounts } from './fault-counts';
import { workerSpecOf, type JobBehaviour } from './job-spec';
import type { Journal } from './journal';
import type { Random } from './random';
import type { Scenario } from './scenario';
import type { VirtualTime } from './virtual-time';

export interface UsersDeps {
  readonly scenario: Scenario;
  readonly counts: FaultCounts;
  readonly time: VirtualTime;
  readonly random: Random;
  readonly journal: Journal;
  readonly tables: Tables;
  /** Of a replica that is up; null: there is none. */
  readonly api: () => { readonly records: RecordStore; readonly wakeRelay: () => void } | null;
  readonly memoryBytes: readonly number[];
}

/** What a request may answer though nothing is wrong. */
const EXPECTED: ReadonlySet<string | undefined> = new Set(['illegal_transition', 'unavailable', 'invalid_input', 'capacity', 'conflict']);

/** Users who submit jobs and change their minds, operators who drain workers, and the intake that admits jobs. */
export class Users {
  readonly queue: JobQueue;
  private readonly admissions = new Map<string, JobBehaviour & { readonly model: string; readonly memoryBytes: number; readonly sharedBytes: number | null }>();
  private readonly delivered = new Set<string>();
  private jobs = 0;
  /** Latest last. */
  private readonly recentOfTeam = new Map<string, string[]>();
  /** Some have ended meanwhile. */
  private readonly open: string[] = [];

  constructor(private readonly deps: UsersDeps) {
    this.queue = this.intakeQueue();
  }

  async submit(): Promise<void> {
    const { random, scenario, tables, api } = this.deps;
    const replica = api();
    if (replica === null) return;
    const team = random.pick([...tables.teams.values()]);
    const id = `ftjob-${String(++this.jobs).padStart(6, '0')}`;
    const recent = this.recentOfTeam.get(team.id) ?? [];
    const afterJobIds = recent.length > 0 && random.chance(scenario.jobs.dependent) ? [...new Set([random.pick(recent), random.pick(recent)])] : [];
    const model = `model-${random.int(1, scenario.models)}`;
    const steps = random.int(1, scenario.jobs.stepsMax);
    this.admissions.set(id, {
      ...{ steps, stepMs: random.int(200, scenario.jobs.stepMsMax), checkpointEvery: random.int(2, 12), model },
      fate: random.chance(0.85) ? 'succeeds' : random.pick(['user_error', 'oom', 'oom', 'oom_always'] as const),
      ...this.memoryOf(team.id),
    });
    const priority = random.chance(scenario.jobs.ranked) ? random.int(-100, 100) : 0;
    const workerSelector: Record<string, string> = random.chance(0.15) ? { zone: random.pick(['a', 'b']) } : {};
    await this.asking(`submit ${id}${afterJobIds.length > 0 ? ` after ${afterJobIds.join(', ')}` : ''}`, () =>
      replica.records.createJob({ id, teamId: team.id, kind: 'fine-tune', spec: { fineTunedModel: `ft:${id}` }, baseModel: model, metadata: null, priority, workerSelector, afterJobIds, queue: 'tune' }),
    );
    replica.wakeRelay();
    if (!tables.jobs.has(id)) return;
    this.open.push(id);
    this.recentOfTeam.set(team.id, [...recent, id].slice(-8));
  }

  /** A job that may share says what it adds on a worker that holds its model. */
  private memoryOf(teamId: string): { readonly memoryBytes: number; readonly sharedBytes: number | null } {
    const { random, scenario, tables, memoryBytes: sizes } = this.deps;
    const memoryBytes = random.between(0.1, 0.9) * random.pick(sizes);
    const mayShare = tables.quotaOf(teamId).sharesWorkers && random.chance(scenario.sharing?.jobs ?? 0);
    return { memoryBytes, sharedBytes: mayShare ? random.between(0.05, 0.5) * memoryBytes : null };
  }

  /** One change of mind at random. */
  async act(): Promise<void> {
    const { random, tables, api } = this.deps;
    const replica = api();
    const job = this.openJob();
    if (replica === null || job === undefined) return;
    const { records } = replica;
    const workers = [...tables.workers.keys()];
    const worker = workers.length === 0 ? '' : random.pick(workers);
    const acts: readonly (readonly [string, () => Promise<unknown>])[] = [
      [`cancel ${job.id}`, () => records.cancelJob(job.teamId, job.id)],
      [`pause ${job.id}`, () => records.pauseJob(job.teamId, job.id, STOP_GRACE_MS)],
      [`pause ${job.id}`, () => records.pauseJob(job.teamId, job.id, STOP_GRACE_MS)],
      [`resume ${job.id}`, () => records.resumeJob(job.teamId, job.id)],
      [`resume ${job.id}`, () => records.resumeJob(job.teamId, job.id)],
      [`priority of ${job.id}`, () => records.setJobPriority(job.teamId, job.id, random.int(-100, 100))],
      [`drain ${worker}`, () => records.drainWorker(worker, { mode: 'move', graceMs: STOP_GRACE_MS })],
      [`drain ${worker} softly`, () => records.drainWorker(worker, { mode: 'wait', deadlineMs: random.int(10_000, 300_000), graceMs: STOP_GRACE_MS })],
      [`cordon ${worker}`, () => records.setWorkerCordoned(worker, true, 'operator')],
      [`uncordon ${worker}`, () => records.setWorkerCordoned(worker, false)],
    ];
    await this.asking(...random.pick(acts));
  }

  /** Operators look at cordoned workers and let some of them work again. Called every so often. */
  async repair(everyMs: number): Promise<void> {
    const { tables, api, random, scenario } = this.deps;
    const replica = api();
    if (replica === null) return;
    for (const { id, cordoned, status } of tables.workers.values()) {
      if (cordoned && status === 'online' && random.chance(everyMs / scenario.cordonedMs)) await this.asking(`uncordon ${id}`, () => replica.records.setWorkerCordoned(id, false));
    }
  }

  /** Takes back what would keep jobs from ending. */
  async settle(): Promise<void> {
    const { tables, api, scenario } = this.deps;
    const replica = api();
    if (replica === null) return;
    for (const { id, cordoned } of tables.workers.values()) if (cordoned) await this.asking(`uncordon ${id}`, () => replica.records.setWorkerCordoned(id, false));
    for (const job of tables.jobs.values()) {
      if (job.status === 'paused' || job.stopReason === 'paused') await this.asking(`resume ${job.id}`, () => replica.records.resumeJob(job.teamId, job.id));
      if (scenario.cancelsRest && job.status === 'queued') await this.asking(`cancel ${job.id}`, () => replica.records.cancelJob(job.teamId, job.id));
    }
  }

  /** Any that has not ended. */
  private openJob(): { readonly id: string; readonly teamId: string } | undefined {
    const { random, tables } = this.deps;
    while (this.open.length > 0) {
      const at = random.int(0, this.open.length - 1);
      const job = tables.jobs.get(this.open[at] as string);
      if (job?.finishedAt === null) return job;
      this.open[at] = this.open.at(-1) as string;
      this.open.pop();
    }
    return undefined;
  }

  private async asking(what: string, request: () => Promise<unknown>): Promise<void> {
    this.deps.journal.note(() => `user: ${what}`);
    try {
      await request();
    } catch (error) {
      if (!EXPECTED.has(errorCode(error))) throw error;
    }
  }

  /** Loses some, doubles some, and remembers ids, as queues do. */
  private intakeQueue(): JobQueue {
    const { random, time, scenario, counts } = this.deps;
    const order = new DeliveryOrder(() => counts.add('queue message overtaken'));
    const nothing = async (): Promise<void> => undefined;
    return {
      backend: 'postgres',
      add: async (message) => {
        if (this.delivered.has(message.id)) return;
        this.delivered.add(message.id);
        if (random.chance(scenario.queue.lost)) return counts.add('queue message lost');
        const delivered = order.send();
        for (let n = random.chance(scenario.queue.twice) ? 2 : 1; n > 0; n--) {
          if (n === 2) counts.add('queue message doubled');
          time.after(random.exponential(1_000), () => {
            delivered();
            void this.takeIn(message);
          });
        }
      },
      consume: nothing,
      counts: async () => ({ waiting: 0, active: 0, failed: 0 }),
      ping: nothing,
      close: nothing,
    };
  }

  private async takeIn({ payload }: QueueMessage): Promise<void> {
    const id = String(payload['jobId']);
    const admission = this.admissions.get(id);
    const replica = this.deps.api();
    if (admission === undefined || replica === null) return;
    const { memoryBytes, sharedBytes, model, ...behaviour } = admission;
    const sharing = sharedBytes === null ? {} : { sharing: { key: model, memoryBytes: sharedBytes } };
    // Jobs of one model and about one size take about as long for a step.
    const shape = `${model} ${Math.round(memoryBytes / 1024 ** 3)}`;
    await this.asking(`(intake) ${id}`, () =>
      replica.records.admitJob(id, { spec: { fineTunedModel: `ft:${id}` }, workerSpec: workerSpecOf(model, behaviour), totalSteps: behaviour.steps, memoryBytesEstimate: memoryBytes, weightBytes: memoryBytes / 2, shape, ...sharing, trainingDatasetId: null, validationDatasetId: null }),
    );
  }
}
