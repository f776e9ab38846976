import { matchesSwiftName } from '../matching/module-sites';
import { withinTimeLimit } from '../matching/time-limit';
import { badField } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { DeepPromptTuningSpec } from './spec';

/** A block that gets virtual tokens of its own. */
export interface PromptedBlock {
  readonly path: string;
  readonly layer: number;
}

/**
 * The blocks a specification names, in the model's order.
 * @throws TunefleetError `invalid_input`
 */
export function matchBlocks({ target_modules: target, dim }: Pick<DeepPromptTuningSpec, 'target_modules' | 'dim'>, model: TunableModel): readonly PromptedBlock[] {
  const hits = withinTimeLimit(() => {
    if (target === null) return blocksOf(model);
    const isHit = (path: string): boolean => matchesSwiftName(target, path);
    const stray = [...model.modules.filter(({ kind }) => kind !== 'block'), ...model.projections].find(({ path }) => isHit(path));
    if (stray) throw badField('target_modules', `${describe(target)} also names "${stray.path}", which is not a block; name blocks only, such as "${blocksOf(model)[0]?.path}", or leave it out for all of them`);
    return blocksOf(model).filter(({ path }) => isHit(path));
  });
  const [first] = hits;
  if (!first) throw badField('target_modules', `${describe(target)} matches no block of this ${model.modelType} model; its blocks are "${blocksOf(model)[0]?.path}" to "${blocksOf(model).at(-1)?.path}"`);
  if (first.layer !== 0) throw badField('target_modules', `${describe(target)} leaves out "${blocksOf(model)[0]?.path}", where virtual tokens enter; without it the others would overwrite real tokens`);
  const widths = dim === null ? [] : [dim].flat();
  if (Array.isArray(dim) && dim.length !== hits.length) throw badField('dim', `has ${dim.length} widths for ${hits.length} blocks; give one number`);
  const other = widths.find((width) => width !== model.hiddenSize);
  if (other !== undefined) throw badField('dim', `is ${other}, but this ${model.modelType} model is ${model.hiddenSize} wide; leave it out`);
  return hits;
}

function blocksOf({ modules }: TunableModel): readonly PromptedBlock[] {
  return modules.filter(({ kind }) => kind === 'block');
}

function describe(target: unknown): string {
  return JSON.stringify(target)?.slice(0, 200) ?? '';
}
