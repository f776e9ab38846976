import { TunefleetError } from '@tunefleet/foundation';
import { adapterRoot, EXTRA_STATES } from '@tunefleet/ml-formats';
import type { ModelHook } from '@tunefleet/ml-nn';
import { composeHooks, type ComposedHook } from '../composition/compose-hooks';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { loadAdapter } from '../registry';
import type { BindableModel, Tuner } from '../tuner';
import { StoredValues } from './stored-values';

/** An adapter that is to be active, all of it or part of its change. */
export type ActiveChoice = string | { readonly name: string; readonly weight: number };

/** Adapters that are active together, for one request, one row, or many. What happens to the pool meanwhile does not change it. */
export interface ActiveSet extends Disposable {
  readonly names: readonly string[];
  /** Usable until disposal. Null: the base, bit for bit. */
  readonly hook: ModelHook | null;
}

export interface ActivateOptions {
  /** Changed maps get weights of their own, as large as the base's: see `composeHooks`. */
  readonly merge?: boolean;
}

/** Values on the device, and who uses them. */
interface Resident {
  readonly adapter: LoadedAdapter;
  users: number;
  /** Not the pool's any more: freed with the last user. */
  released: boolean;
}

interface Entry {
  readonly tuner: Tuner;
  readonly notices: readonly string[];
  readonly values: StoredValues;
  resident: Resident | null;
}

const NAME = /^[A-Za-z0-9_-]{1,100}$/;

/** Any number of named adapters on one base, each on the device, in host memory or on disk. The base is never changed. */
export class AdapterPool implements Disposable {
  readonly #entries = new Map<string, Entry>();

  /** @param diskFolder where values lie that are taken off the host; created when it is needed, emptied on disposal */
  constructor(
    private readonly model: BindableModel,
    private readonly diskFolder: string,
  ) {}

  /** In the order they came. */
  get names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** The adapter of a folder. @throws TunefleetError as `loadAdapter`; `conflict`: the name is taken */
  async addFolder(name: string, folder: string): Promise<void> {
    this.#checkNew(name);
    const adapter = await loadAdapter(this.model, folder);
    try {
      this.addLoaded(name, adapter);
    } catch (error) {
      adapter.dispose();
      throw error;
    }
  }

  /**
   * All adapters of a folder in which several were saved together, under their names there. SWIFT's extra states become an adapter of their own.
   * @returns the names, in the order in which they are to be active
   */
  async addRoot(root: string): Promise<readonly string[]> {
    const { adapters, extraStates } = adapterRoot(root);
    const all = [...(extraStates === null ? [] : [[EXTRA_STATES, extraStates] as const]), ...adapters];
    for (const [name, folder] of all) await this.addFolder(name, folder);
    return all.map(([name]) => name);
  }

  /** @param values all parameters one after the other, kept; not to be written to */
  addValues(name: string, tuner: Tuner, values: Float32Array): void {
    this.#checkNew(name);
    this.addLoaded(name, openAdapter(this.model, tuner, values));
  }

  /** Takes the adapter over. */
  addLoaded(name: string, adapter: LoadedAdapter): void {
    this.#checkNew(name);
    const { tuner, notices, values } = adapter;
    this.#entries.set(name, { tuner, notices, values: new StoredValues(values, this.diskFolder), resident: { adapter, users: 0, released: false } });
  }

  /** What the user should be told of an adapter. */
  notices(name: string): readonly string[] {
    return this.#entry(name).notices;
  }

  /** Its memory is free once the last active set that holds it is disposed. */
  remove(name: string): void {
    const entry = this.#entry(name);
    this.#entries.delete(name);
    release(entry);
    entry.values[Symbol.dispose]();
  }

  rename(name: string, to: string): void {
    const entry = this.#entry(name);
    if (name === to) return;
    this.#checkNew(to);
    const renamed = [...this.#entries].map(([each, value]): [string, Entry] => [value === entry ? to : each, value]);
    this.#entries.clear();
    for (const [each, value] of renamed) this.#entries.set(each, value);
  }

  where(name: string): 'device' | 'host' | 'disk' {
    const { resident, values } = this.#entry(name);
    return resident ? 'device' : values.onHost ? 'host' : 'disk';
  }

  /** Takes an adapter's values off the device until it is activated again; device memory is free as after `remove`. */
  async offload(name: string, to: 'host' | 'disk'): Promise<void> {
    const entry = this.#entry(name);
    release(entry);
    if (to === 'disk') await entry.values.toDisk();
  }

  /**
   * The adapters in this order, each changing what those before it made; values come back to the device where they are not there.
   * @returns the caller's to dispose
   * @throws TunefleetError `invalid_input`: an unknown name, one named twice, or adapters that exclude one another
   */
  async activate(choices: readonly ActiveChoice[], options: ActivateOptions = {}): Promise<ActiveSet> {
    const chosen = choices.map((choice) => (typeof choice === 'string' ? { name: choice, weight: 1 } : choice));
    const names = chosen.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) < index);
    if (twice !== undefined) throw refused(`"${twice}" is named twice; an adapter is active once, with one weight`);
    const entries = chosen.map(({ name, weight }) => ({ name, weight, entry: this.#entry(name) }));
    // Again, as one may be taken away while another is fetched.
    for (let absent = firstAbsent(entries); absent; absent = firstAbsent(entries)) await absent.values.toHost();
    const users: Resident[] = [];
    const leave = (): void => users.forEach(leaveOne);
    try {
      const parts = entries.map(({ name, weight, entry }) => {
        const resident = this.#resident(name, entry);
        resident.users++;
        users.push(resident);
        return { name, weight, hook: resident.adapter.hook };
      });
      return activeSet(names, composeHooks(this.model, parts, options), leave);
    } catch (error) {
      leave();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const name of this.names) this.remove(name);
  }

  #resident(name: string, entry: Entry): Resident {
    // It may have been removed while others were read from disk.
    if (this.#entries.get(name) !== entry && !entry.resident) throw refused(`"${name}" was removed meanwhile`);
    entry.resident ??= { adapter: openAdapter(this.model, entry.tuner, entry.values.read()), users: 0, released: false };
    return entry.resident;
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw new TunefleetError('not_found', `there is no adapter named "${name}"; there are ${this.names.slice(0, 20).join(', ') || 'none'}`, { reason: 'unknown_adapter' });
    return entry;
  }

  #checkNew(name: string): void {
    if (!NAME.test(name)) throw refused(`"${name.slice(0, 120)}" is no name for an adapter; letters, digits, "_" and "-" are, up to 100 of them`);
    if (this.#entries.has(name)) throw new TunefleetError('conflict', `there is an adapter named "${name}" already; remove it first, or take another name`, { reason: 'name_taken' });
  }
}

function firstAbsent(entries: readonly { readonly entry: Entry }[]): Entry | undefined {
  return entries.find(({ entry }) => !entry.resident && !entry.values.onHost)?.entry;
}

function activeSet(names: readonly string[], composed: ComposedHook, leave: () => void): ActiveSet {
  let ended = false;
  const dispose = (): void => {
    if (ended) return;
    ended = true;
    composed[Symbol.dispose]();
    leave();
  };
  return { names, hook: composed.hook, [Symbol.dispose]: dispose };
}

/** The pool's hold on the device memory ends. */
function release(entry: Entry): void {
  const { resident } = entry;
  entry.resident = null;
  if (!resident) return;
  resident.released = true;
  if (resident.users === 0) resident.adapter.dispose();
}

function leaveOne(resident: Resident): void {
  resident.users--;
  if (resident.users === 0 && resident.released) resident.adapter.dispose();
}

function refused(message: string): TunefleetError {
  return new TunefleetError('invalid_input', message, { reason: 'bad_adapter_choice' });
}
