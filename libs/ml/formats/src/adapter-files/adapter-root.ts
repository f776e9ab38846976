import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ADAPTER_CONFIG, badAdapter } from './files';

/** SWIFT's folder of base parameters that were trained along with the adapters beside it. */
export const EXTRA_STATES = 'extra_states';

/** Where trainers put what an adapter was on the way. */
const CHECKPOINT = /^checkpoint-\d+$/;

/** What a folder of PEFT or SWIFT holds where adapters were saved together. */
export interface AdapterRoot {
  /** Folders by the adapters' names, `default` first. PEFT has `default` in the root itself, SWIFT in a folder of its name. */
  readonly adapters: ReadonlyMap<string, string>;
  /** Active under every adapter; null: there are none. */
  readonly extraStates: string | null;
}

/** @throws TunefleetError `incompatible_artifact`: no adapter in it */
export function adapterRoot(root: string): AdapterRoot {
  const inside = existsSync(root) && statSync(root).isDirectory() ? readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory() && existsSync(join(root, entry.name, ADAPTER_CONFIG))) : [];
  const names = inside.map(({ name }) => name).sort();
  const isAdapter = existsSync(join(root, ADAPTER_CONFIG));
  const own: [string, string][] = isAdapter ? [['default', root]] : [];
  const others = names.filter((name) => name !== EXTRA_STATES && !(isAdapter && (name === 'default' || CHECKPOINT.test(name)))).map((name): [string, string] => [name, join(root, name)]);
  const adapters = new Map([...own, ...others.filter(([name]) => name === 'default'), ...others.filter(([name]) => name !== 'default')]);
  if (adapters.size === 0) throw badAdapter(`${root} has no ${ADAPTER_CONFIG}; it is not an adapter folder`);
  return { adapters, extraStates: names.includes(EXTRA_STATES) ? join(root, EXTRA_STATES) : null };
}

/** The one adapter of a folder. @throws TunefleetError `incompatible_artifact`: several, or parameters beside it that it does not compute without */
export function onlyAdapter(root: string): string {
  if (existsSync(join(root, ADAPTER_CONFIG))) return root;
  const { adapters, extraStates } = adapterRoot(root);
  const [only] = adapters.values();
  if (extraStates !== null) throw badAdapter(`${root} has ${EXTRA_STATES}, parameters of the base that were trained along with ${[...adapters.keys()].slice(0, 20).join(', ')}; the parts are loaded together by "tunefleet adapters generate ${root}", or each by its own folder`);
  if (only !== undefined && adapters.size === 1) return only;
  throw badAdapter(`${root} holds the adapters ${[...adapters.keys()].slice(0, 20).join(', ')}; name the folder of one of them`);
}
