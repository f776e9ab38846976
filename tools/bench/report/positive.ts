/** A whole number from 1 on, as an argument of a bench gives it. @throws Error that says what was given */
export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`expected a positive whole number, got "${text}"`);
  return value;
}
