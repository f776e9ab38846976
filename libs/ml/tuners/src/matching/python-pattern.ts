import { errorMessage, TunefleetError } from '@tunefleet/foundation';

/**
 * Compiles a regular expression as PEFT's configurations spell it (Python's `re`), to be matched against a whole name.
 * @throws TunefleetError `invalid_input` when JavaScript cannot run the pattern
 */
export function wholeNamePattern(pattern: string): RegExp {
  return compile(pattern, (source) => `^(?:${source})$`);
}

/** As PEFT looks up `rank_pattern` and `alpha_pattern`: the pattern, after nothing or after anything that ends in a dot. */
export function dottedEndPattern(pattern: string): RegExp {
  return compile(pattern, (source) => `^(?:.*\\.)?(?:${source})$`);
}

/** As PEFT finds the number after a name of `layers_pattern`. */
export function layerNumberPattern(pattern: string): RegExp {
  return compile(pattern, (source) => `^(?:.*?\\.)?(?:${source})\\.(?<layer>\\d+)\\.`);
}

/** What is wrong with a pattern, for people; null when it can be used. */
export function patternProblem(pattern: string): string | null {
  try {
    wholeNamePattern(pattern);
    return null;
  } catch (error) {
    return errorMessage(error);
  }
}

function compile(pattern: string, wrap: (source: string) => string): RegExp {
  const { source, flags } = translate(pattern);
  try {
    return new RegExp(wrap(source), flags);
  } catch (error) {
    throw new TunefleetError('invalid_input', `the pattern "${pattern.slice(0, 200)}" is not a usable regular expression: ${errorMessage(error)}`);
  }
}

/** Python's own spellings of what both languages have. */
function translate(pattern: string): { source: string; flags: string } {
  const inline = /^\(\?([is]+)\)/.exec(pattern);
  const source = pattern
    .slice(inline?.[0].length ?? 0)
    .replaceAll('(?P<', '(?<')
    .replace(/\(\?P=(\w+)\)/g, '\\k<$1>')
    .replaceAll('\\A', '^')
    .replaceAll('\\Z', '$');
  return { source, flags: [...new Set(inline?.[1] ?? '')].join('') };
}
