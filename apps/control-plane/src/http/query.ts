/**
 * A query string's parameters with bracket notation folded: `metadata[team]=a` becomes `{metadata: {team: 'a'}}`, and the literal
 * `metadata=null` becomes null. A parameter given twice stays an array, which no schema takes.
 */
export function foldQuery(query: unknown): Record<string, unknown> {
  const folded = new Map<string, unknown>();
  const groups = new Map<string, [string, unknown][]>();
  for (const [name, value] of Object.entries((query ?? {}) as Record<string, unknown>)) {
    const bracket = /^([^[\]]+)\[([^[\]]+)\]$/.exec(name);
    const [, outer, inner] = bracket ?? [];
    if (outer === undefined || inner === undefined) {
      folded.set(name, name === 'metadata' && value === 'null' ? null : value);
      continue;
    }
    groups.set(outer, [...(groups.get(outer) ?? []), [inner, value]]);
  }
  for (const [name, pairs] of groups) folded.set(name, Object.fromEntries(pairs));
  return Object.fromEntries(folded);
}
