import type { ApiList } from '@tunefleet/contracts';
import type { Page, PageRequest } from '@tunefleet/ports';

export function pageRequest({ after, limit }: { readonly after?: string | undefined; readonly limit: number }): PageRequest {
  return { limit, ...(after === undefined ? {} : { after }) };
}

export function apiList<Row, Item>(page: Page<Row>, view: (row: Row) => Item): ApiList<Item> {
  return { object: 'list', data: page.items.map(view), has_more: page.hasMore };
}

/** A page that also names its first and last item. */
export function boundedList<Item extends { readonly id: string }>(items: readonly Item[], hasMore: boolean) {
  return { object: 'list' as const, data: [...items], has_more: hasMore, first_id: items[0]?.id ?? null, last_id: items.at(-1)?.id ?? null };
}
