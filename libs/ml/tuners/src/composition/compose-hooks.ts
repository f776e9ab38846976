import { TunefleetError } from '@tunefleet/foundation';
import type { ModelHook, ModuleHook, ProjectionGroup } from '@tunefleet/ml-nn';
import { add, linearGroup, scale, type Tensor } from '@tunefleet/ml-tensor';

/**
 * Several adapters on one base at once. Changes of linear maps add, each made from the same input; changes of modules and embeddings follow one another in the
 * given order. The hooks are borrowed: the result can be used as long as each of them.
 * @returns null for none; the hook itself for one
 * @throws TunefleetError `invalid_input`, reason `not_composable`: two that put tokens before the text, replace what enters the final norm, or change the head
 */
export function composeHooks(hooks: readonly ModelHook[]): ModelHook | null {
  const [first] = hooks;
  if (first === undefined) return null;
  if (hooks.length === 1) return first;
  const only = {
    prefix: onlyOne(hooks.flatMap(({ prefix }) => prefix ?? []), 'put virtual tokens before the text'),
    bypass: onlyOne(hooks.flatMap(({ bypass }) => bypass ?? []), 'are a bypass'),
    head: onlyOne(hooks.flatMap(({ head }) => head ?? []), 'change the output head'),
  };
  const projecting = hooks.filter(({ project }) => project !== undefined);
  const embedding = hooks.filter(({ embed }) => embed !== undefined);
  const modules = chainedModules(hooks);
  return {
    ...(projecting.length > 0 ? { project: (x: Tensor, group: ProjectionGroup, residual: Tensor | null) => projectedTogether(projecting, x, group, residual) } : {}),
    ...(modules.size > 0 ? { modules } : {}),
    ...(embedding.length > 0 ? { embed: (embedded: Tensor, ids: Int32Array, factor: number) => embedding.reduce((rows, hook) => hook.embed?.(rows, ids, factor) ?? rows, embedded) } : {}),
    ...(only.prefix ? { prefix: only.prefix } : {}),
    ...(only.bypass ? { bypass: only.bypass } : {}),
    ...(only.head ? { head: only.head } : {}),
  };
}

/** y = base + the sum of (y_i - base). Where one adapter alone changes a group, exactly what it gives. @returns the caller's */
function projectedTogether(hooks: readonly ModelHook[], x: Tensor, group: ProjectionGroup, residual: Tensor | null): readonly Tensor[] | null {
  return x.device.scope(() => {
    let sum: readonly Tensor[] | null = null;
    let base: readonly Tensor[] | null = null;
    for (const hook of hooks) {
      const outputs: readonly Tensor[] | null = hook.project?.(x, group, sum === null ? residual : null) ?? null;
      if (outputs === null) continue;
      if (sum === null) {
        sum = outputs;
        continue;
      }
      base ??= linearGroup(x, group.maps).map((output) => scale(output, -1));
      const negative = base;
      sum = sum.map((total, map) => add(total, add(outputs[map] as Tensor, negative[map] as Tensor)));
    }
    return sum;
  });
}

function chainedModules(hooks: readonly ModelHook[]): Map<string, ModuleHook> {
  const chained = new Map<string, ModuleHook>();
  for (const { modules = new Map<string, ModuleHook>() } of hooks) {
    for (const [path, hook] of modules) {
      const before = chained.get(path);
      chained.set(path, before ? (output, input) => hook(before(output, input), input) : hook);
    }
  }
  return chained;
}

function onlyOne<T>(found: readonly T[], what: string): T | undefined {
  if (found.length > 1) throw new TunefleetError('invalid_input', `${found.length} of the adapters ${what}; at most one of them can be active at once`, { reason: 'not_composable' });
  return found[0];
}
