import type { Snapshot } from '@tunefleet/domain-scheduling';
import { TunefleetError } from '@tunefleet/foundation';
import type { FaultCounts } from './fault-counts';
import type { Random } from './random';
import type { MachineTime } from './virtual-time';

export interface DatabaseWeather {
  /** Of the calls, these fail: half before they have done anything, half after, so that the caller cannot know. */
  failing: number;
}

export interface BetweenReplicaAndStore {
  readonly time: MachineTime;
  readonly random: Random;
  readonly weather: DatabaseWeather;
  readonly counts: FaultCounts;
}

/** `onWake` waits for nobody; everything else is a round trip. */
const LOCAL = new Set<PropertyKey>(['onWake']);

/** Reading the queue and planning take their time; what wakes the scheduler meanwhile causes one more pass, not one each. */
const PASS_ROW_MS = 0.02;

/**
 * The record as one replica sees it: every call takes its time on the way there or on the way back, so that replicas interleave between any two
 * calls; some fail; and the answers to a replica that has died never come.
 */
export function storeOfReplica<T extends object>(store: T, { time, random, weather, counts }: BetweenReplicaAndStore): T {
  const pause = (ms: number): Promise<void> => new Promise((resolve) => time.after(ms, resolve));
  const proxied = new Map<PropertyKey, unknown>();
  return new Proxy(store, {
    get(target, name) {
      // The method is looked up anew each time: tests replace some.
      if (typeof (target as Record<PropertyKey, unknown>)[name] !== 'function' || LOCAL.has(name)) return (target as Record<PropertyKey, unknown>)[name];
      const known = proxied.get(name);
      if (known !== undefined) return known;
      const call = async (...args: unknown[]): Promise<unknown> => {
        const fails = weather.failing > 0 && random.chance(weather.failing);
        const lateFailure = random.chance(0.5);
        const tripMs = random.exponential(2);
        if (fails && !lateFailure) {
          await pause(tripMs);
          counts.add('database call failed');
          throw new TunefleetError('unavailable', 'the database cannot be reached');
        }
        const isSlowThere = random.chance(0.5);
        if (isSlowThere) await pause(tripMs);
        if (time.isDead) return new Promise(() => undefined);
        const answer: unknown = await ((target as Record<PropertyKey, unknown>)[name] as (...values: unknown[]) => Promise<unknown>)(...args);
        const workMs = name === 'schedulingSnapshot' ? PASS_ROW_MS * rowsOf(answer as Snapshot) : 0;
        if (!isSlowThere || workMs > 0) await pause(workMs + (isSlowThere ? 0 : tripMs));
        if (!fails) return answer;
        counts.add('database answer lost');
        throw new TunefleetError('unavailable', 'the answer of the database was lost');
      };
      proxied.set(name, call);
      return call;
    },
  });
}

function rowsOf({ jobs, workers, running }: Snapshot): number {
  return jobs.length + workers.length + running.length;
}
