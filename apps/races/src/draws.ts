import { uniformAt } from '@tunefleet/foundation';

/** Random numbers of one race: all given by its seed and number. */
export class Draws {
  private drawn = 0;

  constructor(
    private readonly seed: number,
    private readonly race: number,
  ) {}

  /** In [0, 1). */
  readonly next = (): number => uniformAt(this.seed, this.race, this.drawn++);

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.next() * items.length)] as T;
  }
}
