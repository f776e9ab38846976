/** An option of a bench that has a wrong value. `bench.mjs` knows it by its code, as it knows those of `parseArgs`, and prints its one line. */
export class OptionError extends Error {
  readonly code = 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE';

  constructor(name: string, text: string, allowed: string) {
    super(`--${name} is "${text}"; ${allowed}`);
  }
}

/** A whole number. @throws OptionError */
export function count(name: string, text: string, min = 1): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min) throw new OptionError(name, text, `it must be a whole number from ${min} on`);
  return value;
}

/** Whole numbers from 1 on, by the options' names. @throws OptionError */
export function counts<Name extends string>(values: Readonly<Record<Name, string>>, names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, count(name, values[name])])) as Record<Name, number>;
}

/** Whole numbers from 1 on, with commas between. @throws OptionError */
export function countList(name: string, text: string): number[] {
  return text.split(',').map((each) => count(name, each));
}

/** One of the known words. @throws OptionError naming them */
export function oneOf<Word extends string>(name: string, text: string, known: readonly Word[]): Word {
  const found = known.find((word) => word === text);
  if (found === undefined) throw new OptionError(name, text, `there ${known.length === 1 ? 'is' : 'are'} ${known.join(', ')}`);
  return found;
}

/** Known words with commas between, in the order in which they are known. @throws OptionError naming them */
export function someOf<Word extends string>(name: string, text: string, known: readonly Word[]): Word[] {
  const chosen = new Set(text.split(',').map((each) => oneOf(name, each, known)));
  return known.filter((word) => chosen.has(word));
}
