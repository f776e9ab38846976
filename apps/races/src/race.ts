import pg from 'pg';
import { errorMessage, silentLogger, sleep } from '@tunefleet/foundation';
import { openStore, type Store } from '@tunefleet/store-prisma';
import { type Draws } from './draws';
import { take, type Hold } from './holds';
import { installJournal, nameOf, SIDES, takeJournal, type Side } from './journal';
import type { Operation } from './operations';
import { brokenRules, type Outcome, type Told } from './rules';
import type { Scene, Start } from './scene';
import { SceneCopies } from './scene-copies';

/** What meets what, where and when. */
export interface RacePlan {
  readonly operations: readonly Operation[];
  readonly start: Start;
  /** Null: they start together, each after its own delay. */
  readonly hold: Hold | null;
  readonly draws: Draws;
}

export interface RaceResult {
  readonly broken: readonly string[];
  /** At one moment at least two were in the middle, or one was while the others ran from begin to end. */
  readonly overlapped: boolean;
  /** What was told, for the message. */
  readonly told: readonly string[];
}

/** Breaks one rule of a side's store; to see that the rules see it. */
export type Sabotage = (store: Store, client: pg.Client) => void;

const DELAY_MS_MAX = 6;
const STUCK_MS = 30_000;

/** A database of its own with one connection for every side, so that each side's writes and waits can be told apart. */
export class RaceTrack {
  private constructor(
    private readonly scenes: SceneCopies,
    private readonly scenery: Store,
    private readonly sides: ReadonlyMap<Side, Store>,
    private readonly clients: readonly pg.Client[],
    private readonly holder: pg.Client,
    private readonly watcher: pg.Client,
  ) {}

  /** @param url a migrated database that nobody else uses */
  static async open(url: string, sabotage: Sabotage = () => undefined): Promise<RaceTrack> {
    const connect = async (name: string): Promise<pg.Client> => {
      const client = new pg.Client({ connectionString: url, application_name: name });
      // When the server ends first; what else goes wrong is seen by whoever asks.
      client.on('error', () => undefined);
      await client.connect();
      return client;
    };
    const [holder, watcher] = [await connect('race-holder'), await connect('race-watcher')];
    await installJournal(watcher);
    const clients: pg.Client[] = [];
    const sides = new Map<Side, Store>();
    for (const side of SIDES) {
      const named = new URL(url);
      named.searchParams.set('application_name', nameOf(side));
      const store = openStore({ databaseUrl: named.toString(), logger: silentLogger, poolSize: 1 });
      const client = await connect(nameOf(side));
      sabotage(store, client);
      clients.push(client);
      sides.set(side, store);
    }
    const scenery = openStore({ databaseUrl: url, logger: silentLogger, poolSize: 2 });
    return new RaceTrack(new SceneCopies(scenery, watcher), scenery, sides, clients, holder, watcher);
  }

  async close(): Promise<void> {
    await Promise.all([this.scenery.close(), ...[...this.sides.values()].map((store) => store.close())]);
    await Promise.all([...this.clients, this.holder, this.watcher].map((client) => client.end()));
  }

  async run(plan: RacePlan): Promise<RaceResult> {
    const scene = await this.scenes.take(plan.start, plan.operations.some(({ withOthers }) => withOthers === true));
    const entries = plan.operations.map((operation, index) => new Entry(SIDES[index] as Side, operation, plan.draws.next()));
    const overlapped = plan.hold === null ? await this.together(entries, scene, plan.draws) : await this.held(entries, scene, plan.hold);
    const told = entries.map((entry) => entry.told());
    const errors = entries.flatMap((entry) => (entry.error === null ? [] : [`${entry.operation.name} (${entry.side}) threw: ${entry.error}`]));
    const outcome = await this.outcome(scene);
    const changes = await takeJournal(this.watcher);
    const broken = errors.length > 0 ? errors : brokenRules(scene, told, changes, outcome);
    return { broken, overlapped, told: told.map(({ side, operation, said, of }) => `${side}: ${operation}${of === undefined ? '' : ` of epoch ${of.epoch}`} -> ${said}`) };
  }

  private async together(entries: readonly Entry[], scene: Scene, draws: Draws): Promise<boolean> {
    const delays = entries.map(() => (draws.chance(0.5) ? 0 : DELAY_MS_MAX * draws.next()));
    const spans = await Promise.all(
      entries.map(async (entry, index) => {
        if ((delays[index] as number) > 0) await sleep(delays[index] as number);
        const begun = performance.now();
        await within(entry.begin(this.storeOf(entry), scene), entry.operation.name);
        return [begun, performance.now()] as const;
      }),
    );
    return Math.max(...spans.map(([begun]) => begun)) < Math.min(...spans.map(([, ended]) => ended));
  }

  /** Each goes as far as it can before the next one begins; then all may go on. */
  private async held(entries: readonly Entry[], scene: Scene, hold: Hold): Promise<boolean> {
    await take(this.holder, hold, scene);
    const running: Promise<void>[] = [];
    let waiting = 0;
    try {
      for (const entry of entries) {
        running.push(entry.begin(this.storeOf(entry), scene));
        await this.untilWaiting(entry);
      }
      waiting = entries.filter((entry) => !entry.isOver).length;
    } finally {
      await this.holder.query('commit');
    }
    for (const [index, entry] of entries.entries()) await within(running[index] as Promise<void>, entry.operation.name);
    return waiting > 0;
  }

  private async untilWaiting(entry: Entry): Promise<void> {
    const untilMs = performance.now() + STUCK_MS;
    while (!entry.isOver) {
      const { rowCount } = await this.watcher.query(`select 1 from pg_stat_activity where application_name = $1 and datname = current_database() and wait_event_type = 'Lock' and wait_event in ('transactionid', 'tuple', 'relation', 'advisory')`, [nameOf(entry.side)]);
      if (rowCount !== null && rowCount > 0) return;
      await sleep(1);
      if (performance.now() > untilMs) throw new Error(`${entry.operation.name} neither ended nor waited within ${STUCK_MS} ms`);
    }
  }

  private storeOf({ side }: Entry): Store {
    return this.sides.get(side) as Store;
  }

  private async outcome({ teamId, jobId, workers }: Scene): Promise<Outcome> {
    const rows = async (text: string, values: readonly unknown[]) => (await this.watcher.query(text, [...values])).rows as Readonly<Record<string, unknown>>[];
    return {
      jobs: await rows('select * from job where team_id = $1', [teamId]),
      attempts: await rows('select a.* from attempt a join job j on j.id = a.job_id where j.team_id = $1', [teamId]),
      metrics: await rows('select * from metric_point where job_id = $1', [jobId]),
      events: await rows('select * from job_event where job_id = $1', [jobId]),
      adapters: await rows('select * from adapter where job_id = $1', [jobId]),
      workers: await rows('select * from worker where id = any($1)', [workers.map(({ id }) => id)]),
    };
  }
}

/** One side of a race. */
class Entry {
  isOver = false;
  error: string | null = null;
  private answer: Awaited<ReturnType<Operation['run']>> | null = null;

  constructor(
    readonly side: Side,
    readonly operation: Operation,
    private readonly variant: number,
  ) {}

  async begin(store: Store, scene: Scene): Promise<void> {
    try {
      this.answer = await this.operation.run(store, scene, this.variant);
    } catch (error) {
      this.error = errorMessage(error);
    } finally {
      this.isOver = true;
    }
  }

  told(): Told {
    const { said = 'stale', ...rest } = this.answer ?? {};
    return { side: this.side, operation: this.operation.name, said, ...rest };
  }
}

async function within(work: Promise<void>, name: string): Promise<void> {
  const timeout = new AbortController();
  const isLate = await Promise.race([work.then(() => false), sleep(STUCK_MS, timeout.signal).then(() => true)]);
  timeout.abort();
  if (isLate) throw new Error(`${name} did not end within ${STUCK_MS} ms of the others`);
}
