import { sleep } from '@tunefleet/foundation';
import type { Log } from './say';
import type { ChaosSystem } from './system/chaos-system';

interface Seen {
  readonly id: string;
  readonly key: string | null;
  readonly status: string;
  readonly step: number;
  readonly totalSteps: number | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly resumed: number;
  readonly outcomes: Readonly<Record<string, number>> | null;
}

const EVERY_MS = 300;
const TERMINAL: ReadonlySet<string> = new Set(['succeeded', 'failed', 'cancelled']);

/** Looks at the record again and again, says when a job has ended, and knows which have not. Blind while the database is away. */
export class JobWatch {
  private jobs: readonly Seen[] = [];
  private readonly ended = new Set<string>();

  constructor(
    private readonly system: ChaosSystem,
    private readonly log: Log,
  ) {}

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.look().catch(() => undefined);
      await sleep(EVERY_MS, signal);
    }
  }

  async look(): Promise<void> {
    this.jobs = await this.system.postgres.query<Seen>(`
      select job.id, idempotency_key as key, job.status, job.step, total_steps as "totalSteps", waiting_reason as reason, count(attempt.id)::int as attempts,
        (count(attempt.id) filter (where resume_checkpoint_id is not null))::int as resumed,
        (select json_object_agg(outcome, times) from (select coalesce(outcome, status) as outcome, count(*) as times from attempt where job_id = job.id group by 1) as by_outcome) as outcomes
      from job left join attempt on job_id = job.id group by job.id order by job.created_at`);
    for (const job of this.jobs) {
      if (!TERMINAL.has(job.status) || this.ended.has(job.id)) continue;
      this.ended.add(job.id);
      this.log.say('job', `${describe(job)}; ${this.ended.size} of ${this.jobs.length} have ended`);
    }
  }

  open(): ReadonlySet<string> {
    return new Set(this.jobs.filter(({ status }) => !TERMINAL.has(status)).map(({ id }) => id));
  }

  /** What keeps those that have not ended. */
  describeOpen(): string[] {
    return this.jobs.filter(({ status }) => !TERMINAL.has(status)).map((job) => `${describe(job)}${job.reason === null ? '' : `, ${job.reason}`}`);
  }
}

function describe({ id, key, status, step, totalSteps, attempts, resumed, outcomes }: Seen): string {
  const how = Object.entries(outcomes ?? {})
    .map(([outcome, times]) => `${times} ${outcome}`)
    .join(', ');
  return `${id} (${key ?? 'no key'}) is ${status} at step ${step}/${totalSteps ?? '?'} after ${attempts} attempt${attempts === 1 ? '' : 's'} (${how}), ${resumed} resumed`;
}
