import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { ModelHook, ModuleHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { add, scale, type AdaptedHead, type LoraBundle, type Tensor } from '@tunefleet/ml-tensor';
import { headGroup } from '../lora/token-tables';
import type { BindableModel } from '../tuner';
import type { ComposableHook } from './composable-hook';
import { fuse, fusedBundle, fusedForward, type FusedForward, type WeightedChange } from './fused-group';
import { mergedForward } from './merged-group';

/** One adapter of several that are active together. */
export interface ActivePart {
  /** For messages. */
  readonly name: string;
  /** As loaded for inference; borrowed. */
  readonly hook: ModelHook;
  /** How much of the adapter's change: 1 is all of it, 0 none. */
  readonly weight: number;
}

export interface ComposedHook extends Disposable {
  /** Usable until disposal, of this and of the adapters'. Null: the base, bit for bit. */
  readonly hook: ModelHook | null;
}

/**
 * Several adapters on one base at once. Changes nest in the given order, as PEFT has them: each changes what those before it made of a map, a module or an embedding. So LoRAs add,
 * factors multiply, and a DoRA's gain takes in the updates before it. Changes of linear maps are fused: the base's product is computed once, and one narrow product for all updates.
 * One adapter of weight 1 is its own hook.
 * @param options.merge changed maps have weights of their own instead, as large as the base's: no more work per token than the base
 * @throws TunefleetError `invalid_input`, reason `not_composable`: adapters that exclude one another, or a weight for what cannot be weighted
 */
export function composeHooks(model: BindableModel, parts: readonly ActivePart[], { merge = false }: { readonly merge?: boolean } = {}): ComposedHook {
  const [first] = parts;
  checkComposable(model, parts);
  if (first === undefined) return { hook: null, [Symbol.dispose]: () => undefined };
  if (parts.length === 1 && first.weight === 1 && !merge) return { hook: first.hook, [Symbol.dispose]: () => undefined };
  const { forwards, head, tensors } = model.device.detached(() => fusedParts(model, parts, merge));
  const modules = chainedModules(parts);
  const embedding = parts.filter(({ hook }) => hook.embed !== undefined);
  const norms = new Map(parts.flatMap(({ hook }) => [...(hook.norms ?? [])]));
  const only = <K extends 'positions' | 'prefix' | 'bypass'>(key: K) => Object.fromEntries(parts.flatMap(({ hook }) => (hook[key] === undefined ? [] : [[key, hook[key]]]))) as Pick<ModelHook, K>;
  const hook: ComposableHook = {
    project: (x, group, residual) => forwards.get(group)?.run(x, residual) ?? null,
    changeOf: (group) => forwards.get(group)?.change ?? null,
    ...(modules.size > 0 ? { modules } : {}),
    ...(embedding.length > 0 ? { embed: (embedded: Tensor, ids: Int32Array, factor: number) => embedding.reduce((rows, part) => weighted(rows, part.hook.embed?.(rows, ids, factor) ?? rows, part.weight), embedded) } : {}),
    ...(norms.size > 0 ? { norms } : {}),
    ...(head ? { head } : {}),
    ...only('positions'),
    ...only('prefix'),
    ...only('bypass'),
  };
  return { hook, [Symbol.dispose]: () => tensors.forEach((tensor) => tensor.dispose()) };
}

function fusedParts(model: BindableModel, parts: readonly ActivePart[], merge: boolean) {
  const forwards = new Map<ProjectionGroup, FusedForward>();
  for (const group of model.projectionGroups) {
    const forward = model.device.scope(() => fusedGroup(model, group, parts, merge));
    if (forward) forwards.set(group, forward);
  }
  const { head, tensors } = fusedHead(model, parts);
  return { forwards, head, tensors: [...new Set([...forwards.values()].flatMap((forward) => forward.tensors)), ...tensors] };
}

/** @returns null where nothing changes the group; tensors of the current scope */
function fusedGroup({ device, computeDtype }: BindableModel, group: ProjectionGroup, parts: readonly ActivePart[], merge: boolean): FusedForward | null {
  const changing = changesOf(group, parts);
  const [first] = changing;
  if (first === undefined) return null;
  const { hook, change } = first;
  if (merge && change.type !== 'opaque') return mergedForward(device, group, fuse(device, group, changing), computeDtype);
  if (changing.length > 1 || first.weight !== 1) return fusedForward(device, group, fuse(device, group, changing), computeDtype);
  return { run: (x, residual) => hook.project?.(x, group, residual) as readonly Tensor[], change, tensors: [] };
}

function changesOf(group: ProjectionGroup, parts: readonly ActivePart[]): readonly (ActivePart & WeightedChange)[] {
  return parts.flatMap((part) => {
    const change = isComposable(part.hook) ? part.hook.changeOf(group) : null;
    return change ? [{ ...part, change }] : [];
  });
}

/** Low-rank updates of the output head, made one; or the one table in its place. */
function fusedHead(model: BindableModel, parts: readonly ActivePart[]): { readonly head: AdaptedHead | null; readonly tensors: readonly Tensor[] } {
  const { device, computeDtype } = model;
  const heads = parts.flatMap(({ hook: { head }, weight }) => (head ? [{ head, weight }] : []));
  const [only] = heads;
  if (only === undefined) return { head: null, tensors: [] };
  if (heads.length === 1 && only.weight === 1) return { head: only.head, tensors: [] };
  const group = headGroup(model);
  invariant(group, 'a head is changed that is not there');
  const changes = heads.map(({ head, weight }): WeightedChange => ({ change: { type: 'low-rank', bundle: head.lora as LoraBundle }, weight }));
  const { bundle, tensors } = device.scope(() => fusedBundle(device, group, fuse(device, group, changes), computeDtype));
  return { head: { table: null, lora: bundle }, tensors };
}

function chainedModules(parts: readonly ActivePart[]): Map<string, ModuleHook> {
  const chained = new Map<string, ModuleHook>();
  for (const { hook: { modules = new Map<string, ModuleHook>() }, weight } of parts) {
    for (const [path, own] of modules) {
      const before = chained.get(path);
      chained.set(path, (output, input) => {
        const given = before?.(output, input) ?? output;
        return weighted(given, own(given, input), weight);
      });
    }
  }
  return chained;
}

/** before + weight (after - before) */
function weighted(before: Tensor, after: Tensor, weight: number): Tensor {
  return weight === 1 ? after : before.device.scope(() => add(scale(before, 1 - weight), scale(after, weight)));
}

function isComposable(hook: ModelHook): hook is ComposableHook {
  return 'changeOf' in hook;
}

function checkComposable({ projectionGroups }: BindableModel, parts: readonly ActivePart[]): void {
  const refuse = (message: string) => new TunefleetError('invalid_input', message, { reason: 'not_composable' });
  const atMostOne = (does: (hook: ModelHook) => boolean, what: string): void => {
    const names = parts.flatMap(({ name, hook }) => (does(hook) ? [`"${name}"`] : []));
    if (names.length > 1) throw refuse(`${names.join(' and ')} ${what}; at most one of them can be active at once`);
  };
  const replaced = (hook: ModelHook) => (isComposable(hook) ? (hook.replacedTokens ?? []) : []);
  atMostOne(({ prefix }) => prefix !== undefined, 'put virtual tokens before the text');
  atMostOne(({ bypass }) => bypass !== undefined, 'are a bypass around the blocks');
  atMostOne(({ positions }) => positions !== undefined, 'have learned positions of their own');
  for (const path of new Set(parts.flatMap(({ hook }) => [...(hook.norms?.keys() ?? [])]))) atMostOne(({ norms }) => norms?.has(path) ?? false, `have weights of their own for ${path}`);
  if (parts.some(({ hook }) => replaced(hook) === 'all')) atMostOne(({ embed }) => embed !== undefined, 'change the token embeddings, one of them the whole table');
  if (parts.some(({ hook }) => hook.head?.table)) atMostOne(({ head }) => head !== undefined, 'change the output head, one of them the whole table');
  const rowsOf = (hook: ModelHook): readonly number[] => {
    const rows = replaced(hook);
    return rows === 'all' ? [] : rows;
  };
  for (const row of new Set(parts.flatMap(({ hook }) => rowsOf(hook)))) atMostOne((hook) => rowsOf(hook).includes(row), `have embeddings of their own for token ${row}`);
  for (const group of projectionGroups) {
    const changing = changesOf(group, parts);
    if (!changing.some(({ change }) => change.type === 'opaque')) continue;
    atMostOne((hook) => changing.some((part) => part.hook === hook), `change ${group.members[0]?.path}, one of them with weights of its own`);
  }
  for (const { name, hook, weight } of parts) {
    invariant(!hook.forPass && (!hook.project || isComposable(hook)), `"${name}" does not say how it changes linear maps`);
    if (!Number.isFinite(weight)) throw refuse(`the weight of "${name}" is ${weight}; it must be a number`);
    const replacesMaps = projectionGroups.some((group) => isComposable(hook) && hook.changeOf(group)?.type === 'opaque');
    const whole = hook.prefix ? 'virtual tokens are' : hook.bypass ? 'a bypass is' : (hook.head?.table ?? hook.norms ?? hook.positions ?? replacesMaps) ? 'weights trained whole are' : null;
    if (weight !== 1 && whole) throw refuse(`"${name}" has weight ${weight}, but ${whole} there or not; give it weight 1`);
  }
}
