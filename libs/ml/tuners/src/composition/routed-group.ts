import type { ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { concatRows, linearGroup, routedLinearGroup, stackable, stackBundles, type LaneRows, type LoraBundle, type LoraStack, type Tensor } from '@tunefleet/ml-tensor';
import type { ComposableHook } from './composable-hook';
import { isLaneHook } from './lane-hook';
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

/** A route's place in a stack that others share. */
interface Lane {
  readonly lane: number;
  readonly stack: LoraStack;
}

type Change = LoraBundle | Lane | 'other' | null;

function changeOf(hook: ModelHook, group: ProjectionGroup): Change {
  if (isLaneHook(hook)) {
    const stack = hook.stackOf(group);
    return stack && { lane: hook.lane, stack };
  }
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
  const stacks = stacksOf(routes.flatMap((route) => {
    const change = changes[route];
    return change && change !== 'other' ? [{ route, change }] : [];
  }));
  return {
    routes,
    run(x, _rows, counts, residual) {
      let at = 0;
      const places = new Map(routes.map((route): [number, LaneRows] => [route, { begin: (at += counts[route] as number) - (counts[route] as number), count: counts[route] as number }]));
      const routed = stacks.map(({ stack, routeOf }) => ({ stack, lanes: routeOf.map((route) => (route === null ? NO_ROWS : (places.get(route) as LaneRows))) }));
      return routedLinearGroup(x, group.maps, routed, residual);
    },
  };
}

const NO_ROWS: LaneRows = { begin: 0, count: 0 };

interface RoutedStack {
  readonly stack: LoraStack;
  /** Of every lane; null: its adapter has no rows in this pass. */
  readonly routeOf: readonly (number | null)[];
}

interface RouteChange<C> {
  readonly route: number;
  readonly change: C;
}

/** Lanes by the stack they are of; bundles of like shapes together. */
function stacksOf(changes: readonly RouteChange<LoraBundle | Lane>[]): RoutedStack[] {
  const given = new Map<LoraStack, (number | null)[]>();
  const kinds: RouteChange<LoraBundle>[][] = [];
  for (const { route, change } of changes) {
    if ('stack' in change) {
      const routeOf = given.get(change.stack) ?? new Array<number | null>(change.stack.a.dim(0)).fill(null);
      routeOf[change.lane] = route;
      given.set(change.stack, routeOf);
      continue;
    }
    const known = kinds.find(([one]) => one && stackable(one.change, change));
    if (known) known.push({ route, change });
    else kinds.push([{ route, change }]);
  }
  return [
    ...[...given].map(([stack, routeOf]) => ({ stack, routeOf })),
    ...kinds.map((lanes) => ({ stack: stackBundles(lanes.map(({ change }) => change)), routeOf: lanes.map(({ route }) => route) })),
  ];
}
