/** Items in groups of `size`, the last as many as are left. */
export async function* inBatches<T>(items: AsyncIterable<T>, size: number): AsyncGenerator<readonly T[]> {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** What `fn` makes of each item, in order; up to `ahead` are under way at once. */
export async function* mapAhead<T, R>(items: AsyncIterable<T>, fn: (item: T) => Promise<R>, ahead: number): AsyncGenerator<R> {
  const underWay: Promise<R>[] = [];
  for await (const item of items) {
    const result = fn(item);
    // Whoever awaits it in its turn hears of it; until then it is not unhandled.
    result.catch(() => undefined);
    underWay.push(result);
    if (underWay.length >= ahead) yield await (underWay.shift() as Promise<R>);
  }
  for (const result of underWay) yield await result;
}
