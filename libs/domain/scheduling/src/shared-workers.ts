import type { Applicant } from './matching';
import { memoryAvailable, MEMORY_SHARE, memoryNeed, sharedMemoryNeed } from './memory-fit';
import { classOf } from './priority';
import { runningByWorker } from './running-view';
import type { QueuedJob, RunningJob, SchedulableWorker } from './snapshot';
import type { Succession } from './succession';
import type { Fleet, WorkerPool } from './worker-pool';

/** Jobs that run beside each other on one worker, or begin to in this pass, and what room they leave. */
interface Group {
  readonly worker: number;
  readonly jobIds: string[];
  /** More jobs that it can take. */
  places: number;
  /** What is on the device once, however many share it: the most that any member's estimate has beyond what it adds itself. */
  commonBytes: number;
  /** What the members add, each for itself. */
  addedBytes: number;
  /** What it has for members that come, whatever others outside the fleet have taken of the device. */
  bytesForNewcomers: number;
}

/** Jobs with one key and of one class: a group is asked as a whole to make room, and nobody in it is to be drawn into that by a lower one. */
interface Family {
  readonly groups: Group[];
  /** From so much on that a job adds, no group has room for it: a search in the pool has failed. */
  readonly hopelessFrom: Map<WorkerPool, number>;
}

type Sharing = Pick<RunningJob, 'memoryBytesEstimate' | 'memoryCorrection' | 'shareKey' | 'sharedMemoryBytes' | 'priority'>;

/**
 * Who runs beside whom. Built once every job has had its pick of free workers, and asked in the order of the queue: whoever could have a worker
 * of its own has it.
 */
export class SharedWorkers {
  /** By share key, then by class. */
  private readonly families = new Map<string, (Family | undefined)[]>();
  private readonly groupOf = new Map<number, Group>();
  private places = 0;

  constructor(
    private readonly fleet: Fleet,
    running: readonly RunningJob[],
    placed: readonly { readonly job: QueuedJob; readonly worker: number }[],
  ) {
    for (const { job, worker } of placed) this.begin(worker, [{ ...job, jobId: job.id }], 1);
    for (const [worker, live] of [...runningByWorker(fleet, running)].sort(([a], [b]) => a - b)) {
      // Nobody comes to those that make room.
      if (live.every(({ preemptedForJobId }) => preemptedForJobId === null)) this.begin(worker, live, 0);
    }
  }

  /** Whether any job could be given a place. */
  get hasPlaces(): boolean {
    return this.places > 0;
  }

  /** Nobody comes to those on the worker any more. */
  close(worker: number): void {
    const group = this.groupOf.get(worker);
    if (group === undefined) return;
    this.places -= group.places;
    group.places = 0;
  }

  /** Gives the job a place beside others: rather beside few. @returns the worker; null: there is none for it */
  join({ job, feasible }: Pick<Applicant, 'job' | 'feasible'>, succession: Succession): number | null {
    const family = job.shareKey === null ? undefined : this.families.get(job.shareKey)?.[classOf(job.priority)];
    const addedBytes = sharedMemoryNeed(job);
    if (family === undefined || addedBytes >= (family.hopelessFrom.get(feasible.pool) ?? Infinity)) return null;
    let best: Group | undefined;
    let isHopeless = feasible.excluded.size === 0;
    for (const group of family.groups) {
      if (group.places === 0 || (best !== undefined && best.jobIds.length <= group.jobIds.length)) continue;
      if (!feasible.pool.has(group.worker) || feasible.excluded.has(this.worker(group).id)) continue;
      if (!this.hasMemory(group, job, addedBytes)) continue;
      isHopeless = false;
      if (succession.allows(group.worker, job)) best = group;
    }
    if (isHopeless) family.hopelessFrom.set(feasible.pool, addedBytes);
    if (best === undefined) return null;
    this.add(best, job.id, job);
    best.places--;
    this.places--;
    best.bytesForNewcomers -= addedBytes;
    return best.worker;
  }

  /** Everybody that may be on the worker, the asked one too. */
  jobIdsOn(worker: number): readonly string[] {
    return this.groupOf.get(worker)?.jobIds ?? [];
  }

  /** @param taken of the worker's credit by this pass */
  private begin(worker: number, members: readonly (Sharing & { readonly jobId: string })[], taken: number): void {
    const { online, cordoned, slots, credit, memoryBytesFree } = this.fleet.workers[worker] as SchedulableWorker;
    const places = Math.min(slots - members.length, credit - taken);
    const [first] = members;
    if (!online || cordoned || places <= 0 || first === undefined || first.shareKey === null) return;
    const priorityClass = classOf(first.priority);
    if (members.some(({ shareKey, priority }) => shareKey !== first.shareKey || classOf(priority) !== priorityClass)) return;
    const group: Group = { worker, jobIds: [], places, commonBytes: 0, addedBytes: 0, bytesForNewcomers: memoryBytesFree * MEMORY_SHARE };
    for (const member of members) this.add(group, member.jobId, member);
    this.groupOf.set(worker, group);
    this.places += places;
    const classes = this.families.get(first.shareKey) ?? [];
    const family: Family = (classes[priorityClass] ??= { groups: [], hopelessFrom: new Map() });
    family.groups.push(group);
    this.families.set(first.shareKey, classes);
  }

  private add(group: Group, jobId: string, member: Sharing): void {
    group.jobIds.push(jobId);
    group.commonBytes = Math.max(group.commonBytes, commonBytes(member));
    group.addedBytes += sharedMemoryNeed(member);
  }

  private hasMemory(group: Group, job: QueuedJob, addedBytes: number): boolean {
    const inAll = Math.max(group.commonBytes, commonBytes(job)) + group.addedBytes + addedBytes;
    return inAll <= memoryAvailable(this.worker(group)) * MEMORY_SHARE && addedBytes <= group.bytesForNewcomers;
  }

  private worker({ worker }: Group): SchedulableWorker {
    return this.fleet.workers[worker] as SchedulableWorker;
  }
}

function commonBytes(job: Sharing): number {
  return Math.max(0, memoryNeed(job) - sharedMemoryNeed(job));
}
