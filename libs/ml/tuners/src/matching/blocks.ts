import type { TunableModel } from '../tuner';

/** The block that a module lies in, from 0; null: outside of the blocks. */
export function blockOf(path: string, { modules }: Pick<TunableModel, 'modules'>): number | null {
  return modules.find((site) => site.kind === 'block' && path.startsWith(`${site.path}.`))?.layer ?? null;
}
