/**
 * Facts that never change, by key: at most so many, those used last. A fact of several megabytes weighs more than one.
 */
export class Recent<T> {
  private readonly kept = new Map<string, { readonly fact: T; readonly weight: number }>();
  private weight = 0;

  constructor(private readonly weightMax: number) {}

  get(key: string): T | undefined {
    const found = this.kept.get(key);
    if (found === undefined) return undefined;
    // A map goes through its keys in the order in which they were put in.
    this.kept.delete(key);
    this.kept.set(key, found);
    return found.fact;
  }

  set(key: string, fact: T, weight = 1): void {
    if (weight > this.weightMax) return;
    this.drop(key);
    this.kept.set(key, { fact, weight });
    this.weight += weight;
    for (const oldest of this.kept.keys()) {
      if (this.weight <= this.weightMax) return;
      this.drop(oldest);
    }
  }

  private drop(key: string): void {
    this.weight -= this.kept.get(key)?.weight ?? 0;
    this.kept.delete(key);
  }
}
