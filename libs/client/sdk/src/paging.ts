/** A page of objects as the API gives it. */
interface ApiPage<T> {
  readonly data: readonly T[];
  readonly has_more: boolean;
}

/** All items of a list, page after page as they are asked for. Items made meanwhile may be left out; none comes twice. */
export async function* eachItem<T extends { readonly id: string }>(page: (after: string | undefined) => Promise<ApiPage<T>>, after?: string): AsyncGenerator<T> {
  for (;;) {
    const { data, has_more: hasMore } = await page(after);
    yield* data;
    after = data.at(-1)?.id;
    if (!hasMore || after === undefined) return;
  }
}
