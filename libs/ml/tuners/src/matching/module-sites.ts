import type { ModuleSite } from '@tunefleet/ml-nn';
import { badField } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { NameTest } from './module-names';
import { wholeNamePattern } from './python-pattern';
import { withinTimeLimit } from './time-limit';

/** A string is a regular expression for whole paths; a list entry hits what ends with it, also without a dot. @see modelscope/ms-swift `swift/tuners/adapter.py` */
export function matchesSwiftName(test: NameTest, path: string): boolean {
  return typeof test === 'string' ? wholeNamePattern(test).test(path) : test.some((entry) => path.endsWith(entry));
}

/**
 * The modules that SWIFT's tuners would wrap, in the model's order.
 * @param test null: `usual`
 * @throws TunefleetError `invalid_input`, param `tuner.target_modules`, when nothing matches or something named cannot be hooked
 */
export function matchModules(test: NameTest | null, model: TunableModel, usual: (site: ModuleSite) => boolean): ModuleSite[] {
  if (test === null) return model.modules.filter(usual);
  return withinTimeLimit(() => {
    const shown = JSON.stringify(test).slice(0, 200);
    const hookable = new Set(model.modules.map(({ path }) => path));
    const stray = model.projections.find(({ path }) => !hookable.has(path) && matchesSwiftName(test, path));
    const hits = model.modules.filter(({ path }) => matchesSwiftName(test, path));
    const first = model.modules.filter(({ layer }) => layer === 0 || layer === model.layers).map(({ path }) => `"${path}"`);
    if (stray) throw badField('target_modules', `${shown} also names "${stray.path}", whose output cannot be adapted; what can, per block and at the end: ${first.join(', ')}`);
    if (hits.length === 0) throw badField('target_modules', `${shown} names no module of this ${model.modelType} model whose output can be adapted; there are, per block and at the end: ${first.join(', ')}`);
    return hits;
  });
}
