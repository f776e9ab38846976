import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { BypassHook, ModelHook, ModuleHook } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import { routedGroup } from './routed-group';
import { RoutedRows, withoutPadding, type HookRoute } from './routed-rows';

/**
 * One hook that gives every range of rows an adapter of its own, or none. What an adapter computes for its rows is what it computes for them alone, but for the
 * rounding of products that now have more rows; nothing of one range enters another, in neither direction. Linear maps are applied once to all rows; low-rank updates
 * without dropout, gain or shift run as batched products over all routes of equal shapes, other changes of linear maps and modules range by range.
 * @returns a hook that holds tensors of the enclosing scope, for any pass over rows so divided
 * @throws TunefleetError `invalid_input`, reason `not_routable`: an adapter that changes what all rows share
 */
export function routeHooks(model: BindableModel, routes: readonly HookRoute[]): ModelHook {
  const hooks = routes.map(({ hook }) => hook);
  checkRoutable(hooks);
  const groups = new Map(model.projectionGroups.map((group) => [group, routedGroup(group, hooks)] as const));
  const paths = [...new Set(hooks.flatMap((hook) => [...(hook?.modules?.keys() ?? [])]))];
  const embeds = hooks.some((hook) => hook?.embed);
  const bypassed = hooks.some((hook) => hook?.bypass);
  return {
    forPass(pass) {
      const rows = new RoutedRows(routes, pass);
      return {
        project: (x, group, residual) => groups.get(group)?.(x, rows, residual) ?? null,
        ...(paths.length > 0 ? { modules: new Map(paths.map((path) => [path, routedModule(path, rows)])) } : {}),
        ...(embeds ? { embed: (embedded: Tensor, ids: Int32Array, scale: number) => routedEmbedding(embedded, ids, scale, rows) } : {}),
        ...(bypassed ? { bypass: routedBypass(hooks, rows, model.layers) } : {}),
      };
    },
  };
}

function routedModule(path: string, rows: RoutedRows): ModuleHook {
  return (output, input) =>
    rows.map([output, input], ({ hook, tensors, own }) => {
      const change = hook?.modules?.get(path);
      return (change ? withoutPadding(tensors, own, ([given, from]) => [change(given as Tensor, from as Tensor)]) : tensors)[0] as Tensor;
    });
}

function routedEmbedding(embedded: Tensor, ids: Int32Array, scale: number, rows: RoutedRows): Tensor {
  return rows.map([embedded], ({ hook, tensors, begin, own }) => {
    if (!hook?.embed) return tensors[0] as Tensor;
    const all = ids.subarray(begin, begin + (tensors[0] as Tensor).dim(0));
    const given = own ? own.map((row) => all[row] as number) : all;
    return withoutPadding(tensors, own, ([part]) => [hook.embed?.(part as Tensor, given, scale) as Tensor])[0] as Tensor;
  });
}

/** A route without a bypass has what the last block gives. */
function routedBypass(hooks: readonly (ModelHook | null)[], rows: RoutedRows, layers: number): BypassHook {
  const states = [...new Set([...hooks.flatMap((hook) => hook?.bypass?.states ?? []), layers])].sort((a, b) => a - b);
  return {
    states,
    run(stems) {
      const given = states.map((state) => stems[state] as Tensor);
      invariant(!given[0]?.device.tape || hooks.every((hook) => hook === null || hook.bypass), 'beside a bypass no gradient reaches adapters of the blocks');
      return rows.map(given, ({ hook, tensors }) => {
        if (!hook?.bypass) return tensors[states.indexOf(layers)] as Tensor;
        return hook.bypass.run(stems.map((_, state) => tensors[states.indexOf(state)] ?? null));
      });
    },
  };
}

function checkRoutable(hooks: readonly (ModelHook | null)[]): void {
  for (const hook of hooks) {
    const shared = hook?.prefix ? 'puts virtual tokens before the text' : hook?.head ? 'changes the output head' : hook?.norms ? 'trains norms' : hook?.positions ? 'trains positions' : null;
    if (shared) throw new TunefleetError('invalid_input', `an adapter that ${shared} cannot share a pass with other adapters; give it a pass of its own`, { reason: 'not_routable' });
  }
}
