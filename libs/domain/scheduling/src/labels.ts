export function asksForNothing(selector: Readonly<Record<string, string>>): boolean {
  for (const _name in selector) return false;
  return true;
}

/** Every pair of the selector must be among the labels. */
export function labelsMatch(selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>): boolean {
  for (const name of Object.keys(selector)) if (labels[name] !== selector[name]) return false;
  return true;
}

/** Equal for equal selectors; empty for one that asks for nothing. */
export function selectorKey(selector: Readonly<Record<string, string>>): string {
  // With their lengths, so that no two selectors run into the same text.
  return Object.keys(selector).sort().reduce((key, name) => `${key}${name.length}:${name}${selector[name]?.length ?? 0}:${selector[name] ?? ''}`, '');
}

export function selectorText(selector: Readonly<Record<string, string>>): string {
  return Object.entries(selector)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');
}
