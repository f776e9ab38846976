import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { concatRows, linearGroup, routedLinearGroup, stackable, stackBundles, type LaneRows, type LoraBundle, type LoraStack, type Tensor } from '@tunefleet/ml-tensor';
import type { ComposableHook } from './composable-hook';
import { splitRows, withoutPadding, type RoutedRows } from './routed-rows';

/** A group of linear maps under routes. @param x [N, in]   @returns per map [N, out], the caller's */
export type RoutedProject = (x: Tensor, rows: RoutedRows, residual: Tensor | null) => readonly Tensor[];

/** @returns null where no route changes the group; else what holds tensors of the enclosing scope */
export function routedGroup(group: ProjectionGroup, hooks: readonly (ModelHook | null)[]): RoutedProject | null {
  const changes = hooks.map((hook) => hook && changeOf(hook, group));
  if (changes.every((change) => change === null)) return null;
  const segments = segmentsOf(changes).map((routes) => segmentOf(group, routes, hooks, changes));
  const [only] = segments as [Segment];
  if (segments.length === 1) return (x, rows, residual) => only.run(x, rows, rows.counts(x.dim(0)), residual);
  return (x, rows, residual) =>
    x.device.scope(() => {
      const counts = rows.counts(x.dim(0));
      const sizes = segments.map(({ routes }) => routes.reduce((sum, route) => sum + (counts[route] as number), 0));
      const [xs, residuals] = [splitRows(x, sizes), residual && splitRows(residual, sizes)];
      const outputs = segments.flatMap((segment, index) => {
        const part = xs[index];
        return part ? [segment.run(part, rows, counts, residuals?.[index] ?? null)] : [];
      });
      return group.maps.map((_, map) => concatRows(outputs.map((each) => each[map] as Tensor)));
    });
}

/** Neighbouring routes that one product serves: any number without `other` changes, or one of these. */
interface Segment {
  readonly routes: readonly number[];
  /** @param counts of every route's rows in the whole tensor */
  run(x: Tensor, rows: RoutedRows, counts: readonly number[], residual: Tensor | null): readonly Tensor[];
}

type Change = LoraBundle | 'other' | null;

function changeOf(hook: ModelHook, group: ProjectionGroup): Change {
  if (!hook.project) return null;
  if (!('changeOf' in hook)) return 'other';
  const change = (hook as ComposableHook).changeOf(group);
  if (!change) return null;
  return change.type === 'low-rank' && isPlain(change.bundle) ? change.bundle : 'other';
}

/** Nothing but low-rank updates of one and the same input. */
function isPlain({ updates, decomposition, shift }: LoraBundle): boolean {
  return !decomposition && shift.every((each) => each === null) && updates.every(({ dropout }) => dropout === null);
}

function segmentsOf(changes: readonly Change[]): number[][] {
  const segments: number[][] = [];
  changes.forEach((change, route) => {
    const last = segments.at(-1);
    if (last && change !== 'other' && changes[route - 1] !== 'other') last.push(route);
    else segments.push([route]);
  });
  return segments;
}

function segmentOf(group: ProjectionGroup, routes: readonly number[], hooks: readonly (ModelHook | null)[], changes: readonly Change[]): Segment {
  const [first] = routes as readonly [number];
  if (changes[first] === 'other') {
    const hook = hooks[first] as ModelHook;
    return {
      routes,
      run: (x, rows, counts, residual) =>
        withoutPadding([x, ...(residual ? [residual] : [])], rows.own(first, counts.reduce((sum, count) => sum + count, 0)), ([given, added = null]) => hook.project?.(given as Tensor, group, added) ?? linearGroup(given as Tensor, group.maps, { residual: added })),
    };
  }
  const stacks = stacksOf(routes.flatMap((route) => (changes[route] ? [{ route, bundle: changes[route] as LoraBundle }] : [])));
  return {
    routes,
    run(x, _rows, counts, residual) {
      let at = 0;
      const places = new Map(routes.map((route): [number, LaneRows] => [route, { begin: (at += counts[route] as number) - (counts[route] as number), count: counts[route] as number }]));
      return routedLinearGroup(x, group.maps, stacks.map(({ stack, routes: lanes }) => ({ stack, lanes: lanes.map((route) => places.get(route) as LaneRows) })), residual);
    },
  };
}

/** Bundles of like shapes together. */
function stacksOf(bundles: readonly { readonly route: number; readonly bundle: LoraBundle }[]): { readonly stack: LoraStack; readonly routes: readonly number[] }[] {
  const kinds: { readonly route: number; readonly bundle: LoraBundle }[][] = [];
  for (const each of bundles) {
    const known = kinds.find(([one]) => one && stackable(one.bundle, each.bundle));
    if (known) known.push(each);
    else kinds.push([each]);
  }
  return kinds.map((lanes) => ({ stack: stackBundles(lanes.map(({ bundle }) => bundle)), routes: lanes.map(({ route }) => route) }));
}
