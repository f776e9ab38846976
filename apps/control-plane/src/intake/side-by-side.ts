/** What runs side by side, awaited to the end of all. @throws of those that failed the first in the list's order, so that what a user is told does not depend on which was faster */
export async function sideBySide<const T extends readonly unknown[]>(work: T): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  const ends = await Promise.allSettled(work);
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return ends.map((end) => (end.status === 'fulfilled' ? end.value : undefined)) as { -readonly [K in keyof T]: Awaited<T[K]> };
}
