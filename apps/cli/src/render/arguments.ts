import { InvalidArgumentError } from 'commander';

/** Parsers of option values for commander; messages say the value and what is wanted. */

export function wholeNumber(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < minimum || value > maximum) {
      throw new InvalidArgumentError(`a whole number from ${minimum} to ${maximum} is needed, not "${text}".`);
    }
    return value;
  };
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) throw new InvalidArgumentError(`a number above 0 is needed, not "${text}".`);
  return value;
}

/** "a,b" and repeated options add up. */
export function nameList(text: string, before: readonly string[] | undefined): string[] {
  const names = text.split(',').map((name) => name.trim()).filter((name) => name !== '');
  if (names.length === 0) throw new InvalidArgumentError('names separated by commas are needed.');
  return [...(before ?? []), ...names];
}

/** `key=value`, repeated. */
export function keyValue(text: string, before: Readonly<Record<string, string>> | undefined): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError(`key=value is needed, not "${text}".`);
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}
