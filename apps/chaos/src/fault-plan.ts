import { errorMessage, sleep } from '@tunefleet/foundation';
import type { Random } from '../../simulation/src/random';
import { faults, type FaultName, type Targets } from './faults';
import type { Log } from './say';
import type { ChaosSystem, Replica, Worker } from './system/chaos-system';

export interface FaultPlanOptions {
  readonly kinds: readonly FaultName[];
  readonly betweenMs: number;
}

/** A job whose budget of infrastructure failures is nearly used up would fail by rule: its worker is spared. */
const INFRA_FAILURES_MAX = 3;

/**
 * Which faults come, in which order and at which distance, is the seed's. What they hit is what is there at that moment: real processes do not
 * run alike twice. Kinds are dealt like cards, so that each comes up.
 */
export class FaultPlan {
  readonly done = new Map<FaultName, number>();
  readonly troubles: string[] = [];
  private readonly inTrouble = new Set<Worker | Replica | string>();
  private readonly healing = new Set<Promise<void>>();
  private deck: FaultName[] = [];

  constructor(
    private readonly system: ChaosSystem,
    private readonly random: Random,
    private readonly log: Log,
    private readonly options: FaultPlanOptions,
  ) {}

  /** Breaks things until the signal; then waits until everything is healed. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.options.betweenMs * this.random.between(0.4, 1.6), signal);
      if (!signal.aborted) await this.strike(this.draw());
    }
    await Promise.all(this.healing);
  }

  get total(): number {
    return [...this.done.values()].reduce((sum, count) => sum + count, 0);
  }

  private async strike(kind: FaultName): Promise<void> {
    const hit: (Worker | Replica | string)[] = [];
    try {
      const broken = await faults[kind](this.system, this.targets(hit), this.random);
      if (broken === null) return this.free(hit);
      this.done.set(kind, (this.done.get(kind) ?? 0) + 1);
      this.log.say('fault', broken.what);
      const healed = this.heal(broken.heal, hit, broken.what).finally(() => this.healing.delete(healed));
      this.healing.add(healed);
    } catch (error) {
      this.free(hit);
      // Two faults met: the database that was asked whom to spare is away, say.
      this.log.say('fault', `${kind} did not come about: ${errorMessage(error)}`);
    }
  }

  private async heal(heal: (() => Promise<void>) | null, hit: readonly (Worker | Replica | string)[], what: string): Promise<void> {
    try {
      await heal?.();
      this.log.say('healed', what);
    } catch (error) {
      this.troubles.push(`${what}: ${errorMessage(error)}`);
    }
    this.free(hit);
  }

  private targets(hit: (Worker | Replica | string)[]): Targets {
    const take = <T extends Worker | Replica | string>(candidates: readonly T[]): T | null => {
      const free = candidates.filter((each) => !this.inTrouble.has(each));
      if (free.length === 0) return null;
      const taken = this.random.pick(free);
      this.inTrouble.add(taken);
      hit.push(taken);
      return taken;
    };
    return {
      worker: async () => {
        const spared = await this.system.postgres.query<{ name: string }>(
          `select worker.name from attempt join worker on worker.id = worker_id join job on job.id = job_id where attempt.status <> 'finished' and job.infra_failures > ${INFRA_FAILURES_MAX}`,
        );
        return take(this.system.workers.filter(({ part }) => !spared.some(({ name }) => name === part.name)));
      },
      // The other one has to be there: the service as a whole goes away with PostgreSQL only.
      replica: () => (this.system.replicas.some((each) => this.inTrouble.has(each)) ? null : take(this.system.replicas)),
      service: (name) => take([name]) !== null,
    };
  }

  private free(hit: readonly (Worker | Replica | string)[]): void {
    for (const each of hit) this.inTrouble.delete(each);
  }

  private draw(): FaultName {
    if (this.deck.length === 0) {
      this.deck = [...this.options.kinds];
      for (let index = this.deck.length - 1; index > 0; index--) {
        const other = this.random.int(0, index);
        [this.deck[index], this.deck[other]] = [this.deck[other] as FaultName, this.deck[index] as FaultName];
      }
    }
    return this.deck.pop() as FaultName;
  }
}
