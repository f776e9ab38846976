import { matchesName } from '../matching/module-names';
import { withinTimeLimit } from '../matching/time-limit';
import { badField } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import { blockTuners, type BlockTuners } from './block-tuners';
import type { BypassSpec } from './spec';

/**
 * Where a bypass begins, what feeds its blocks, and what these are. Hidden states are numbered along the model: 0 is what enters its first block, l + 1 what
 * block l gives.
 */
export interface BypassWiring {
  readonly root: number;
  /** By block of the bypass. */
  readonly stems: readonly number[];
  /** Hidden states in use, ascending, each once. */
  readonly states: readonly number[];
  readonly blocks: readonly BypassBlock[];
  /** C */
  readonly width: number;
  /** As a file names them. */
  readonly names: { readonly root: { readonly path: string; readonly hook: 'input' | 'output' }; readonly stems: readonly string[]; readonly target: string };
}

export interface BypassBlock extends BlockTuners {
  /** The vertical path is multiplied by a learned number that starts at zero. */
  readonly carried: boolean;
  /** The paths are mixed by a learned gate instead of added. */
  readonly mixed: boolean;
  /** W2 and b2 start at zero. */
  readonly silent: { readonly lateral: boolean; readonly vertical: boolean };
}

/** @throws TunefleetError `invalid_input` when the specification does not fit the model */
export function wireBypass(spec: BypassSpec, model: TunableModel): BypassWiring {
  return withinTimeLimit(() => wire(spec, model));
}

function wire(spec: BypassSpec, model: TunableModel): BypassWiring {
  const names = new ModuleNames(model);
  const all = stemsOf(spec, names);
  const kept = all.filter((_, index) => (all.length - 1 - index) % spec.stem_stride === 0);
  const state = (layer: number, hook: 'input' | 'output') => (hook === 'input' ? layer : layer + 1);
  const stems = kept.map((layer) => state(layer, spec.stem_modules_hook));
  const rootBlock = spec.root_modules === null ? null : names.firstBlock(spec.root_modules);
  // Without a root it is the input of the first stem, whatever of the stems is kept.
  const root = rootBlock === null ? (all[0] as number) : state(rootBlock, spec.root_modules_hook);
  const target = targetOf(spec, names);
  const depth = stems.length;
  checkWidths(spec.dims, model.hiddenSize, depth);
  const identity = spec.bypass_init === 'identity';
  const blocks = stems.map((_, index): BypassBlock => {
    const tuners = blockTuners(spec.tuner_cfg, index, depth);
    const last = index === depth - 1;
    return {
      ...tuners,
      carried: identity && tuners.vertical.type !== 'zero',
      mixed: spec.bypass_mix === 'gate',
      silent: { lateral: last && (identity || spec.zero_init_last), vertical: last && spec.zero_init_last },
    };
  });
  if (identity && (stems.at(-1) !== model.layers || blocks.at(-1)?.lateral.type === 'zero')) {
    throw badField('bypass_init', '"identity" starts at the base only where the last stem is the output of the last block and enters through a lateral path; name that block last in stem_modules, or set bypass_init to null');
  }
  if (blocks.every(({ lateral, vertical, carried, mixed }) => lateral.type !== 'adapter' && vertical.type !== 'adapter' && !carried && !mixed)) throw badField('tuner_cfg', 'leaves nothing to train; use "res_adapter"');
  const states = [...new Set([root, ...stems])].sort((a, b) => a - b);
  return { root, stems, states, blocks, width: model.hiddenSize, names: { root: rootOf(names, root), stems: kept.map((layer) => names.blocks[layer] as string), target } };
}

/** Numbers of the blocks that are stems, in the order of the bypass. */
function stemsOf({ stem_modules: given }: BypassSpec, names: ModuleNames): number[] {
  if (given === null) return names.blocks.map((_, layer) => layer);
  if (Array.isArray(given)) {
    return given.map((path, index) => {
      const layer = names.blocks.indexOf(path);
      if (layer === -1) throw badField('stem_modules', `"${path.slice(0, 200)}" is no block of this ${names.model.modelType} model; stems are whole blocks, named in full as "${names.blocks[0]}"`);
      if (given.indexOf(path) !== index) throw badField('stem_modules', `"${path}" is listed twice`);
      return layer;
    });
  }
  const others = names.others.find((path) => matchesName(given as string, path));
  if (others !== undefined) throw badField('stem_modules', `"${given}" also matches "${others}"; stems are whole blocks such as "${names.blocks[0]}"`);
  const layers = names.blocks.flatMap((path, layer) => (matchesName(given as string, path) ? [layer] : []));
  if (layers.length === 0) throw badField('stem_modules', `"${given}" matches no block of this ${names.model.modelType} model; its blocks are "${names.blocks[0]}" to "${names.blocks.at(-1)}"`);
  return layers;
}

/** A hidden state as the input or output of a block. */
function rootOf({ blocks }: ModuleNames, state: number): BypassWiring['names']['root'] {
  const path = blocks[state];
  return path === undefined ? { path: blocks.at(-1) as string, hook: 'output' } : { path, hook: 'input' };
}

/** What enters the final norm is what the last block gives; either may be named. */
function targetOf(spec: BypassSpec, names: ModuleNames): string {
  const { target_modules: given, target_modules_hook: hook, target_hidden_pos: position } = spec;
  const [last, norm] = [names.blocks.at(-1) as string, names.finalNorm];
  const matched = given === null ? (hook === 'input' ? norm : last) : [...names.inOrder].reverse().find((path) => matchesName(given, path));
  if (matched === undefined) throw badField('target_modules', `"${given}" matches no module of this ${names.model.modelType} model; the bypass replaces the input of "${norm}"`);
  const first = position === null || position === 0 || (hook === 'input' && position === 'hidden_states');
  if (!first) throw badField('target_hidden_pos', `${JSON.stringify(position)} is not the hidden state; leave it out`);
  if ((hook === 'input' && matched === norm) || (hook === 'output' && matched === last)) return norm;
  throw badField('target_modules', `the ${hook} of "${matched}" cannot be replaced; on a decoder the bypass replaces the input of "${norm}" (or the output of "${last}", which is the same)`);
}

function checkWidths(dims: BypassSpec['dims'], width: number, depth: number): void {
  const given = dims === null ? [] : [dims].flat();
  if (Array.isArray(dims) && dims.length !== depth) throw badField('dims', `lists ${dims.length} blocks, the bypass has ${depth}, one per stem`);
  const wrong = given.find((each) => each !== width);
  if (wrong !== undefined) throw badField('dims', `${wrong} is not the width of this model's hidden states, ${width}; leave it out`);
}

/** Module paths of a decoder, as far as a pattern may be meant for them. */
class ModuleNames {
  readonly blocks: readonly string[];
  readonly finalNorm: string;
  readonly others: readonly string[];
  /** As `named_modules` lists them: what contains something before it. */
  readonly inOrder: readonly string[];

  constructor(readonly model: TunableModel) {
    this.blocks = model.modules.filter(({ kind }) => kind === 'block').map(({ path }) => path);
    const [first] = this.blocks;
    if (first === undefined) throw badField('kind', `a bypass needs a decoder; this ${model.modelType} model has no blocks that it could start from`);
    const [stack] = first.split('.') as [string];
    this.finalNorm = model.modules.find(({ kind }) => kind === 'final-norm')?.path ?? `${stack}.norm`;
    const containers = [stack, first.slice(0, first.lastIndexOf('.'))];
    const inside = [...model.modules.filter(({ kind }) => kind !== 'block' && kind !== 'final-norm'), ...model.projections].map(({ path }) => path);
    this.others = [...containers, ...inside, this.finalNorm, 'lm_head'];
    this.inOrder = [...containers, ...this.blocks.flatMap((block) => [block, ...inside.filter((path) => path.startsWith(`${block}.`))]), this.finalNorm, 'lm_head'];
  }

  /** @returns the number of the first module that the pattern matches, which must be a block */
  firstBlock(pattern: string): number {
    const path = this.inOrder.find((each) => matchesName(pattern, each));
    const layer = path === undefined ? -1 : this.blocks.indexOf(path);
    if (layer >= 0) return layer;
    throw badField('root_modules', `"${pattern}" matches ${path === undefined ? 'nothing' : `"${path}" first`}; the root is a whole block such as "${this.blocks[0]}"`);
  }
}
