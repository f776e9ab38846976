import type { WorkerScope } from '@tunefleet/ports';

export interface ClaimedIdentity {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export const anyWorker: WorkerScope = { namePattern: null, labels: null };

/** What of the claim the scope does not allow, in words; null: nothing. */
export function outsideScope({ name, labels }: ClaimedIdentity, scope: WorkerScope): string | null {
  if (scope.namePattern !== null && !fits(name, scope.namePattern)) return `the name ${name} does not fit ${scope.namePattern}`;
  if (scope.labels === null) return null;
  for (const [label, value] of Object.entries(labels)) {
    const pattern = Object.hasOwn(scope.labels, label) ? scope.labels[label] : undefined;
    if (pattern === undefined) return `the label ${label} is not among those allowed (${Object.keys(scope.labels).join(', ') || 'none'})`;
    if (!fits(value, pattern)) return `the label ${label}=${value} does not fit ${label}=${pattern}`;
  }
  return null;
}

/** `*` stands for any text. Looks from left to right once, so that no pattern is slow. */
export function fits(text: string, pattern: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return text === pattern;
  const last = rest.pop() ?? '';
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last)) return false;
  const end = text.length - last.length;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}
