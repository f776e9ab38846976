import { plan, type Plan } from '../plan';
import type { Preemption } from '../preemption';
import type { QueuedJob, RunningJob, SchedulableWorker, Snapshot, TeamAccount } from '../snapshot';
import { decayedUsage } from '../team-shares';
import { running, snapshot, worker } from './builders';

/** A job as the simulated user knows it. */
export interface SimulatedJob {
  readonly job: QueuedJob;
  /** What it takes, whatever is estimated. */
  readonly seconds: number;
  readonly arrivesAtMs: number;
}

export interface Simulation {
  readonly teams: readonly TeamAccount[];
  readonly workers: readonly SchedulableWorker[];
  readonly jobs: readonly SimulatedJob[];
  readonly untilMs: number;
  /** After every pass. */
  readonly onPass?: (result: Plan, seen: Snapshot) => void;
}

export interface SimulationResult {
  /** From its beginning to its end; also of jobs that are still running. */
  readonly gpuSecondsByTeam: ReadonlyMap<string, number>;
  readonly firstStartMs: ReadonlyMap<string, number>;
  readonly endedAtMs: ReadonlyMap<string, number>;
  readonly preemptions: readonly (Preemption & { readonly atMs: number })[];
}

interface Live {
  readonly of: SimulatedJob;
  readonly record: RunningJob;
  readonly endsAtMs: number;
}

/** What a victim takes for its checkpoint. */
const CHECKPOINT_MS = 20_000;

/**
 * The scheduler's pure core in a world of its own: a virtual clock, jobs that come, run, make room and go on where they were. Passes are made
 * when something happens, as the real loop makes them.
 */
export function simulate({ teams, workers, jobs, untilMs, onPass }: Simulation): SimulationResult {
  const world = new World(teams, workers, jobs);
  for (let nowMs = 0; nowMs <= untilMs; nowMs = world.nextEventMs(nowMs)) {
    world.advanceTo(nowMs);
    const seen = world.snapshotAt(nowMs);
    const result = plan(seen);
    onPass?.(result, seen);
    world.apply(result, nowMs);
  }
  world.advanceTo(untilMs);
  return world.result(untilMs);
}

class World {
  private readonly waiting = new Map<string, { readonly of: SimulatedJob; readonly job: QueuedJob }>();
  private readonly live = new Map<string, Live>();
  private readonly used = new Map<string, { seconds: number; atMs: number }>();
  private readonly total = new Map<string, number>();
  private readonly left = new Map<string, number>();
  private readonly preempted = new Map<string, number>();
  private readonly firstStartMs = new Map<string, number>();
  private readonly endedAtMs = new Map<string, number>();
  private readonly preemptions: (Preemption & { readonly atMs: number })[] = [];
  private readonly arrivals: SimulatedJob[];
  private lookAgainAtMs = Infinity;

  constructor(
    private readonly teams: readonly TeamAccount[],
    private readonly workers: readonly SchedulableWorker[],
    jobs: readonly SimulatedJob[],
  ) {
    this.arrivals = [...jobs].sort((a, b) => a.arrivesAtMs - b.arrivesAtMs);
  }

  nextEventMs(nowMs: number): number {
    const times = [this.arrivals[0]?.arrivesAtMs ?? Infinity, this.lookAgainAtMs, ...[...this.live.values()].map(({ endsAtMs }) => endsAtMs)];
    return Math.max(nowMs + 1, Math.min(...times));
  }

  advanceTo(nowMs: number): void {
    for (let next = this.arrivals[0]; next !== undefined && next.arrivesAtMs <= nowMs; next = this.arrivals[0]) {
      this.arrivals.shift();
      this.waiting.set(next.job.id, { of: next, job: { ...next.job, queuedAtMs: next.arrivesAtMs } });
    }
    for (const [id, { endsAtMs }] of this.live) if (endsAtMs <= nowMs) this.end(id, endsAtMs);
  }

  snapshotAt(nowMs: number): Snapshot {
    const live = [...this.live.values()].map(({ record }) => record);
    const held = (workerId: string): number => live.filter((record) => record.workerId === workerId).length;
    return snapshot(
      [...this.waiting.values()].map(({ job }) => job),
      this.workers.map((free) => worker(free.id, { ...free, busy: held(free.id) > 0, credit: free.slots - held(free.id) })),
      {
        nowMs,
        running: live.map((record) => ({ ...record, gpuSeconds: (nowMs - record.assignedAtMs) / 1000 })),
        teams: this.teams.map((team) => {
          const used = this.used.get(team.id) ?? { seconds: 0, atMs: nowMs };
          return { ...team, decayedGpuSeconds: decayedUsage(used.seconds, nowMs - used.atMs) };
        }),
      },
    );
  }

  apply({ placements, preemptions, lookAgainAtMs }: Plan, nowMs: number): void {
    this.lookAgainAtMs = lookAgainAtMs ?? Infinity;
    for (const { jobId, workerId } of placements) {
      const { of, job } = this.waiting.get(jobId) as { of: SimulatedJob; job: QueuedJob };
      this.waiting.delete(jobId);
      if (!this.firstStartMs.has(jobId)) this.firstStartMs.set(jobId, nowMs);
      const { teamId, priority, queuedAtMs, secondsEstimate, memoryBytesEstimate, shareKey, sharedMemoryBytes } = job;
      const memory = { memoryBytesEstimate, shareKey, sharedMemoryBytes };
      const record = running(jobId, workerId, { teamId, priority, queuedAtMs, secondsEstimate, ...memory, assignedAtMs: nowMs, preemptions: this.preempted.get(jobId) ?? 0 });
      this.live.set(jobId, { of, record, endsAtMs: nowMs + 1000 * (this.left.get(jobId) ?? of.seconds) });
    }
    for (const preemption of preemptions) {
      this.preemptions.push({ ...preemption, atMs: nowMs });
      for (const { jobId } of preemption.victims) {
        const victim = this.live.get(jobId) as Live;
        this.preempted.set(jobId, victim.record.preemptions + 1);
        const record = { ...victim.record, preemptions: victim.record.preemptions + 1, stopping: true, preemptedForJobId: preemption.forJobId };
        this.live.set(jobId, { ...victim, record, endsAtMs: Math.min(victim.endsAtMs, nowMs + CHECKPOINT_MS) });
      }
    }
  }

  result(nowMs: number): SimulationResult {
    for (const { record } of this.live.values()) this.charge(record, nowMs);
    return { gpuSecondsByTeam: this.total, firstStartMs: this.firstStartMs, endedAtMs: this.endedAtMs, preemptions: this.preemptions };
  }

  private end(id: string, atMs: number): void {
    const { of, record } = this.live.get(id) as Live;
    this.live.delete(id);
    this.charge(record, atMs);
    const left = (this.left.get(id) ?? of.seconds) - (atMs - record.assignedAtMs) / 1000;
    // Rounding: less than a millisecond is nothing.
    if (left < 1e-3) {
      this.endedAtMs.set(id, atMs);
      return;
    }
    // Its place in the queue is kept.
    this.left.set(id, left);
    this.waiting.set(id, { of, job: { ...of.job, queuedAtMs: of.arrivesAtMs } });
  }

  private charge({ teamId, assignedAtMs }: RunningJob, atMs: number): void {
    const seconds = (atMs - assignedAtMs) / 1000;
    const used = this.used.get(teamId) ?? { seconds: 0, atMs };
    this.used.set(teamId, { seconds: decayedUsage(used.seconds, atMs - used.atMs) + seconds, atMs });
    this.total.set(teamId, (this.total.get(teamId) ?? 0) + seconds);
  }
}
