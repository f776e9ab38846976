import { TunefleetError } from '@tunefleet/foundation';
import type { Random } from './random';
import type { MachineTime } from './virtual-time';

export interface DatabaseWeather {
  /** Of the calls, these fail: half before they have done anything, half after, so that the caller cannot know. */
  failing: number;
}

/** `onWake` waits for nobody; everything else is a round trip. */
const LOCAL = new Set<PropertyKey>(['onWake']);

/**
 * The record as one replica sees it: every call takes its time on the way there or on the way back, so that replicas interleave between any two
 * calls; some fail; and the answers to a replica that has died never come.
 */
export function storeOfReplica<T extends object>(store: T, { time, random, weather }: { readonly time: MachineTime; readonly random: Random; readonly weather: DatabaseWeather }): T {
  const pause = (): Promise<void> => new Promise((resolve) => time.after(random.exponential(2), resolve));
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
        if (fails && !lateFailure) {
          await pause();
          throw new TunefleetError('unavailable', 'the database cannot be reached');
        }
        const isSlowThere = random.chance(0.5);
        if (isSlowThere) await pause();
        if (time.isDead) return new Promise(() => undefined);
        const answer: unknown = await ((target as Record<PropertyKey, unknown>)[name] as (...values: unknown[]) => Promise<unknown>)(...args);
        if (!isSlowThere) await pause();
        if (fails) throw new TunefleetError('unavailable', 'the answer of the database was lost');
        return answer;
      };
      proxied.set(name, call);
      return call;
    },
  });
}
