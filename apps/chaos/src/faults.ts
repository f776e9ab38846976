import { sleep } from '@tunefleet/foundation';
import type { Random } from '../../simulation/src/random';
import type { ChaosSystem, Replica, Worker } from './system/chaos-system';
import type { PostgresEnd } from './system/postgres-server';

/** A fault that was brought about, and how it ends. */
export interface Broken {
  readonly what: string;
  /** Brings everything back; null: nothing to bring back. */
  readonly heal: (() => Promise<void>) | null;
}

/** Parts that are in trouble already, and jobs that may not fail once more, are left alone. */
export interface Targets {
  /** Null: none is free. It is in trouble until the fault is healed. */
  worker(): Promise<Worker | null>;
  replica(): Replica | null;
  service(name: 'postgres' | 'redis'): boolean;
}

type Fault = (system: ChaosSystem, targets: Targets, random: Random) => Promise<Broken | null>;

/** How long an assignment is waited for by the fault that wants one under way. */
const ASSIGNMENT_MS = 6_000;

export const faults = {
  'kill -9 of a worker': async (_system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const downMs = random.int(0, 4_000);
    await worker.part.crash();
    return { what: `kill -9 of ${worker.part.name}, away for ${downMs} ms`, heal: afterwards(downMs, () => comeBack(worker)) };
  },
  'loss of a worker for longer than its lease': async (system, targets) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const downMs = (system.options.leaseSeconds + 3) * 1_000;
    await worker.part.crash();
    return { what: `kill -9 of ${worker.part.name}, away for ${downMs} ms`, heal: afterwards(downMs, () => comeBack(worker)) };
  },
  'kill -9 of an engine': async (_system, targets) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const engines = await worker.part.below('engine');
    for (const pid of engines) signal(pid, 'SIGKILL');
    return { what: `kill -9 of the engine of ${worker.part.name}`, heal: afterwards(1_000) };
  },
  'freeze of a worker for longer than its lease': async (system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const alone = random.chance(0.5);
    const pids = [worker.part.pid, ...(alone ? [] : await worker.part.below('engine'))].filter((pid) => pid !== undefined);
    const frozenMs = system.options.leaseSeconds * 1_000 + random.int(1_000, 5_000);
    for (const pid of pids) signal(pid, 'SIGSTOP');
    return { what: `${worker.part.name} frozen for ${frozenMs} ms, ${alone ? 'its engine goes on' : 'its engine with it'}`, heal: afterwards(frozenMs, () => thaw(pids)) };
  },
  'short freeze of an engine': async (_system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const pids = await worker.part.below('engine');
    const frozenMs = random.int(500, 3_000);
    for (const pid of pids) signal(pid, 'SIGSTOP');
    return { what: `the engine of ${worker.part.name} frozen for ${frozenMs} ms`, heal: afterwards(frozenMs, () => thaw(pids)) };
  },
  'shutdown of a worker': async (_system, targets) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const stopped = worker.part.stop();
    return {
      what: `${worker.part.name} is shut down as an operator would, and started again`,
      heal: async () => {
        await stopped;
        await comeBack(worker);
      },
    };
  },
  'kill -9 of a replica': async (_system, targets, random) => {
    const replica = targets.replica();
    return replica === null ? null : crashReplica(replica, random, '');
  },
  'kill -9 of a replica while it assigns': async (system, targets, random) => {
    const replica = targets.replica();
    if (replica === null) return null;
    const worker = await assignment(system);
    return crashReplica(replica, random, worker === null ? ' (nothing was being assigned)' : ` while ${worker} is given a job`);
  },
  'restart of a replica': async (_system, targets) => {
    const replica = targets.replica();
    if (replica === null) return null;
    const stopped = replica.part.stop();
    return {
      what: `${replica.part.name} is stopped as an operator would, and started again`,
      heal: async () => {
        await stopped;
        await comeBack(replica);
      },
    };
  },
  'FLUSHALL of Redis': async (system, targets) => {
    if (!targets.service('redis')) return null;
    await system.redis.flush();
    return { what: 'Redis forgets everything', heal: null };
  },
  'kill -9 of Redis': async (system, targets, random) => {
    if (!targets.service('redis')) return null;
    const downMs = random.int(0, 4_000);
    await system.redis.end('SIGKILL');
    return { what: `kill -9 of Redis, back and empty after ${downMs} ms`, heal: afterwards(downMs, () => system.redis.begin()) };
  },
  'kill -9 of PostgreSQL': (system, targets, random) => endPostgres(system, targets, random, 'SIGKILL', 'kill -9 of'),
  'immediate shutdown of PostgreSQL': (system, targets, random) => endPostgres(system, targets, random, 'SIGQUIT', 'immediate shutdown of'),
  'restart of PostgreSQL': (system, targets, random) => endPostgres(system, targets, random, 'SIGINT', 'fast shutdown of'),
  'cut of a line': async (_system, targets) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    worker.line.cut();
    return { what: `the connections of ${worker.part.name} are cut`, heal: afterwards(500) };
  },
  'cut of a line in the middle of uploads': async (_system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const cuts = random.int(3, 8);
    return {
      what: `the connections of ${worker.part.name} are cut ${cuts} times in a row`,
      heal: async () => {
        for (let count = 0; count < cuts; count++) {
          worker.line.cut();
          await sleep(random.int(50, 700));
        }
      },
    };
  },
  'delays on a line': async (_system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const [delayMs, forMs] = [random.int(50, 400), random.int(3_000, 8_000)];
    worker.line.delay(delayMs);
    return { what: `each piece to and from ${worker.part.name} takes ${delayMs} ms, for ${forMs} ms`, heal: afterwards(forMs, () => worker.line.delay(0)) };
  },
  'a line that swallows everything': async (system, targets, random) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const forMs = random.int(500, system.options.leaseSeconds * 1_500);
    worker.line.stall();
    return { what: `nothing gets through to or from ${worker.part.name} for ${forMs} ms, and nobody is told`, heal: afterwards(forMs, () => worker.line.resume()) };
  },
  'a worker moved to the other replica': async (system, targets) => {
    const worker = await targets.worker();
    if (worker === null) return null;
    const [first, second] = system.replicas.map(({ grpcUrl }) => grpcUrl) as [string, string];
    const order = moved.get(worker) === true ? [first, second] : [second, first];
    moved.set(worker, moved.get(worker) !== true);
    worker.line.aim(...order);
    worker.line.cut();
    return { what: `${worker.part.name} is cut off and led to ${system.replicas[order[0] === first ? 0 : 1]?.part.name}`, heal: afterwards(500) };
  },
} satisfies Readonly<Record<string, Fault>>;

export type FaultName = keyof typeof faults;

const moved = new WeakMap<Worker, boolean>();

async function crashReplica(replica: Replica, random: Random, when: string): Promise<Broken> {
  const downMs = random.int(0, 4_000);
  await replica.part.crash();
  return { what: `kill -9 of ${replica.part.name}${when}, away for ${downMs} ms`, heal: afterwards(downMs, () => comeBack(replica)) };
}

async function endPostgres(system: ChaosSystem, targets: Targets, random: Random, how: PostgresEnd, words: string): Promise<Broken | null> {
  if (!targets.service('postgres')) return null;
  const downMs = random.int(0, 2_500);
  await system.postgres.end(how);
  return { what: `${words} PostgreSQL, back after ${downMs} ms`, heal: afterwards(downMs, () => system.postgres.begin()) };
}

/** Waits for one to be made, and not acknowledged yet. @returns the worker's name */
async function assignment(system: ChaosSystem): Promise<string | null> {
  for (const deadline = performance.now() + ASSIGNMENT_MS; performance.now() < deadline; ) {
    const [found] = await system.postgres.query<{ name: string }>(`select name from attempt join worker on worker.id = worker_id where attempt.status = 'assigned' limit 1`).catch(() => []);
    if (found !== undefined) return found.name;
  }
  return null;
}

function afterwards(ms: number, then: () => Promise<void> | void = () => undefined): () => Promise<void> {
  return async () => {
    await sleep(ms);
    await then();
  };
}

/** A replica starts only where the database answers. */
async function comeBack({ part }: Pick<Worker, 'part'>): Promise<void> {
  part.begin();
  await part.untilReady();
}

function thaw(pids: readonly number[]): void {
  for (const pid of pids) signal(pid, 'SIGCONT');
}

/** It may have ended meanwhile. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
