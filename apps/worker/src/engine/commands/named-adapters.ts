import { basename, resolve } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import { adapterRoot } from '@tunefleet/ml-formats';

const NAME = /^[A-Za-z0-9_-]{1,100}$/;

/**
 * The adapters of some folders, each of which may hold several, under names of their own.
 * @param names one per adapter, separated by commas; default: those they have in a folder with others, or the folder's own; `default` for a single one
 * @throws TunefleetError `invalid_input`: names that are none, or two alike
 */
export function namedAdapters(folders: readonly string[], names?: string): { readonly named: ReadonlyMap<string, string>; readonly extraStates: string | null } {
  const roots = folders.map((folder) => ({ folder, ...adapterRoot(folder) }));
  const found = roots.flatMap(({ folder, adapters }) => [...adapters].map(([name, path]): [string, string] => [adapters.size === 1 && folders.length > 1 ? basename(resolve(folder)) : name, path]));
  const given = names?.split(',') ?? found.map(([name]) => (found.length === 1 ? 'default' : name));
  if (given.length !== found.length) throw new TunefleetError('invalid_input', `--names has ${given.length} names for ${found.length} adapters: ${found.map(([name]) => name).join(', ')}`);
  const bad = given.find((name, index) => !NAME.test(name) || given.indexOf(name) < index);
  if (bad !== undefined) throw new TunefleetError('invalid_input', `"${bad}" cannot be the name of an adapter, or is that of two; give each one of letters, digits, "_" and "-" with --names`);
  const [extraStates = null, ...more] = roots.flatMap((root) => root.extraStates ?? []);
  if (more.length > 0) throw new TunefleetError('invalid_input', `${more[0]} and ${extraStates} hold parameters of the base; at most one of them can be written`);
  return { named: new Map(given.map((name, index) => [name, (found[index] as [string, string])[1]])), extraStates };
}
