import { Draws } from './draws';
import type { Hold } from './holds';
import { operations, type Operation } from './operations';
import { RaceTrack, type RacePlan, type Sabotage } from './race';
import type { Start } from './scene';

export interface RacesOptions {
  readonly seed: number;
  /** First race and how many. */
  readonly from: number;
  readonly races: number;
  /** Databases to run them on, each migrated and empty: races on one follow each other, those on different ones run side by side. */
  readonly databaseUrls: readonly string[];
  /** Only these two against each other. */
  readonly pair?: readonly [string, string];
  readonly sabotage?: Sabotage;
  readonly onProgress?: (done: number) => void;
}

export interface RacesResult {
  readonly races: number;
  /** Of them, those in which the operations were surely in the middle at once. */
  readonly overlapped: number;
  readonly pairs: number;
  readonly held: Readonly<Record<string, number>>;
}

/** The message tells the race, what is wrong with it, and how to run it again. */
export class RaceFailure extends Error {
  override readonly name = 'RaceFailure';
}

const HELD = 0.7;
const THREE = 0.2;

/** Every operation with every other and itself. */
export const pairs: readonly (readonly [Operation, Operation])[] = operations.flatMap((one, index) => operations.slice(index).map((other) => [one, other] as const));

/** @throws RaceFailure the first that breaks a rule */
export async function runRaces({ seed, from, races, databaseUrls, pair, sabotage, onProgress = () => undefined }: RacesOptions): Promise<RacesResult> {
  const chosen = pair === undefined ? pairs : pairs.filter(([one, other]) => (one.name === pair[0] && other.name === pair[1]) || (one.name === pair[1] && other.name === pair[0]));
  if (chosen.length === 0) throw new Error(`no such pair: ${pair?.join(', ')}; operations are ${operations.map(({ name }) => name).join(', ')}`);
  const held: Record<string, number> = {};
  let [next, done, overlapped] = [from, 0, 0];
  const failures: RaceFailure[] = [];

  const lane = async (url: string): Promise<void> => {
    const track = await RaceTrack.open(url, sabotage);
    try {
      while (next < from + races && failures.length === 0) {
        const race = next++;
        const plan = planRace(seed, race, chosen);
        const result = await track.run(plan);
        if (result.overlapped) overlapped++;
        held[plan.hold ?? 'started together'] = (held[plan.hold ?? 'started together'] ?? 0) + 1;
        if (result.broken.length > 0) failures.push(new RaceFailure(messageOf({ seed, race, plan, pair }, result.broken, result.told)));
        onProgress(++done);
      }
    } finally {
      await track.close();
    }
  };
  await Promise.all(databaseUrls.map(lane));
  if (failures[0] !== undefined) throw failures[0];
  return { races: done, overlapped, pairs: new Set(Array.from({ length: Math.min(races, chosen.length) }, (_, index) => (from + index) % chosen.length)).size, held };
}

function planRace(seed: number, race: number, chosen: readonly (readonly [Operation, Operation])[]): RacePlan {
  const draws = new Draws(seed, race);
  const [one, other] = chosen[race % chosen.length] as readonly [Operation, Operation];
  const two = draws.chance(0.5) ? [one, other] : [other, one];
  const all = draws.chance(THREE) ? [...two, draws.pick(operations)] : two;
  // Where both have something to do, if there is such a place.
  const shared = one.starts.filter((start) => other.starts.includes(start));
  const start: Start = draws.pick(shared.length > 0 ? shared : [...one.starts, ...other.starts]);
  const hold: Hold | null = draws.chance(HELD) ? draws.pick((all[0] as Operation).holds) : null;
  return { operations: all, start, hold, draws };
}

function messageOf({ seed, race, plan, pair }: { readonly seed: number; readonly race: number; readonly plan: RacePlan; readonly pair: readonly [string, string] | undefined }, broken: readonly string[], told: readonly string[]): string {
  const names = plan.operations.map(({ name }) => name).join(' x ');
  const again = `npx nx run races:run --seed=${seed} --from=${race} --races=1${pair === undefined ? '' : ` --pair="${pair.join(',')}"`}`;
  return [`seed ${seed}, race ${race}: ${names}, from ${plan.start}, ${plan.hold === null ? 'started together' : `held at ${plan.hold}`}`, ...broken.map((line) => `  broken: ${line}`), ...told.map((line) => `  told ${line}`), `again: ${again}`].join('\n');
}
