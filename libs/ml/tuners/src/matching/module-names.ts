import { dottedEndPattern, layerNumberPattern, wholeNamePattern } from './python-pattern';

/** A regular expression for whole paths, or a list of paths and path endings. */
export type NameTest = string | readonly string[];

/** Which modules a configuration names, in PEFT's terms. */
export interface ModuleSelection {
  /** Not `all-linear`: that is expanded before. */
  readonly target: NameTest;
  readonly exclude: NameTest | null;
  /** With a list of targets only. Empty: all layers. */
  readonly layers: readonly number[];
  /** Names that stand before a layer's number; empty: any. */
  readonly layersPattern: readonly string[];
}

/**
 * A string must match the whole path as a regular expression; a list entry must be the path, or the path must end with `.` + entry.
 * @see huggingface/peft `tuners_utils.py`, `check_target_module_exists`
 */
export function matchesName(test: NameTest, path: string): boolean {
  if (typeof test === 'string') return wholeNamePattern(test).test(path);
  return test.some((entry) => path === entry || path.endsWith(`.${entry}`));
}

/** PEFT's order: exclusions win, then the targets, then the layer numbers for hits of a list that are not full paths. */
export function selects({ target, exclude, layers, layersPattern }: ModuleSelection, path: string): boolean {
  if (exclude !== null && exclude.length > 0 && matchesName(exclude, path)) return false;
  if (!matchesName(target, path)) return false;
  if (typeof target === 'string' || layers.length === 0 || target.includes(path)) return true;
  const layer = layerNumber(path, layersPattern);
  return layer !== null && layers.includes(layer);
}

/** The number in the first `.<name>.<digits>.` of the path, or the one after the first name of `layersPattern` that is there. */
export function layerNumber(path: string, layersPattern: readonly string[]): number | null {
  const patterns = layersPattern.length > 0 ? layersPattern.map(layerNumberPattern) : [/^.*?\.[^.]*\.(?<layer>\d+)\./];
  for (const pattern of patterns) {
    const digits = pattern.exec(path)?.groups?.['layer'];
    if (digits !== undefined) return Number(digits);
  }
  return null;
}

/** Value of the first pattern, in object order, that the end of the path matches from a dot on. */
export function patternValue(patterns: Readonly<Record<string, number>>, path: string): number | undefined {
  for (const [pattern, value] of Object.entries(patterns)) if (dottedEndPattern(pattern).test(path)) return value;
  return undefined;
}
