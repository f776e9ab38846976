/** Every pair of the selector must be among the labels. */
export function labelsMatch(selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>): boolean {
  for (const name of Object.keys(selector)) if (labels[name] !== selector[name]) return false;
  return true;
}

/** Equal for equal selectors. */
export function selectorKey(selector: Readonly<Record<string, string>>): string {
  const names = Object.keys(selector);
  if (names.length === 0) return '';
  return JSON.stringify(names.sort().map((name) => [name, selector[name]]));
}

export function selectorText(selector: Readonly<Record<string, string>>): string {
  return Object.entries(selector)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');
}
