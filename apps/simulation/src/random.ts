import { uniformAt } from '@tunefleet/foundation';

/** A row of random numbers of its own, given by seed and stream: what one part draws does not move the others. */
export class Random {
  private drawn = 0;

  constructor(
    private readonly seed: number,
    private readonly stream: number,
  ) {}

  /** In [0, 1). */
  readonly next = (): number => uniformAt(this.seed, this.stream, this.drawn++);

  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }

  /** Both included. */
  int(low: number, high: number): number {
    return Math.floor(this.between(low, high + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.min(items.length - 1, Math.floor(this.next() * items.length))] as T;
  }

  /** Memoryless, with this mean. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next());
  }
}
