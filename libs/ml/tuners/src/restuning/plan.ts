import type { ModuleSite } from '@tunefleet/ml-nn';
import { matchesName } from '../matching/module-names';
import { withinTimeLimit } from '../matching/time-limit';
import { badField } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { ParameterSlot } from '../named-parameters/parameter-slots';
import { resAdapterSlots } from './res-adapter';
import { isObject, parseResAdapter, type ResAdapterConfig } from './res-adapter-config';
import type { ResTuningSpec } from './spec';

/** What a module gets. */
export type BranchConfig =
  | ({ readonly type: 'adapter' } & ResAdapterConfig)
  /** n keys and values per head that every token sees beside its own. */
  | { readonly type: 'prefix'; readonly length: number };

export interface Branch {
  readonly site: ModuleSite;
  readonly config: BranchConfig;
  readonly slots: readonly ParameterSlot[];
}

const PROMPT_LENGTH_DEFAULT = 16;
const PROMPT_LENGTH_MAX = 4096;

/** @param name of the adapter, which is part of its parameters' names   @throws TunefleetError `invalid_input` when the specification does not fit the model */
export function planBranches(spec: ResTuningSpec, model: TunableModel, name = 'default'): Branch[] {
  const usual = branchConfig(spec.tuner_cfg, 0, null).type === 'prefix' ? ['attention'] : ['attention', 'mlp'];
  const sites = withinTimeLimit(() => sitesOf(spec, model, usual));
  const branches = sites.map((site, index): Branch => {
    const config = branchConfig(spec.tuner_cfg, index, sites.length);
    const path = `${site.path}.restuner_${name}`;
    return { site, config, slots: config.type === 'adapter' ? resAdapterSlots(path, site.outSize, config, spec.zero_init_last) : prefixSlots(path, config.length, model) };
  });
  const prefixed = branches.filter(({ config }) => config.type === 'prefix');
  const layers = new Set(prefixed.filter(({ site }) => site.kind === 'attention').map(({ site }) => site.layer));
  if (prefixed.length > 0 && (layers.size !== model.layers || prefixed.length !== model.layers)) {
    throw badField('stem_modules', 'res_prefix goes on the attention of every block and on nothing else, so that all blocks see equally many tokens; leave stem_modules out');
  }
  return branches;
}

/** @param count of branches; null: not known yet   @throws TunefleetError `invalid_input` */
export function branchConfig(value: unknown, index: number, count: number | null): BranchConfig {
  const [name, options] = typeof value === 'string' ? [value, {}] : singleEntry(value);
  if (name === 'res_adapter') {
    const lengths = options['adapter_length'];
    return { type: 'adapter', ...parseResAdapter(options, index, count ?? (Array.isArray(lengths) ? lengths.length : 1), 'tuner_cfg') };
  }
  if (name === 'res_prefix') return { type: 'prefix', length: promptLength(options) };
  throw badField('tuner_cfg', `there is no "${name.slice(0, 60)}" beside a module; use "res_adapter" or "res_prefix"`);
}

function singleEntry(value: unknown): [name: string, options: Readonly<Record<string, unknown>>] {
  const [entry, ...more] = isObject(value) ? Object.entries(value) : [];
  if (entry && more.length === 0 && isObject(entry[1])) return [entry[0], entry[1]];
  throw badField('tuner_cfg', `must be "res_adapter", "res_prefix", or one of them with options as in {"res_prefix": {"prompt_length": 16}}, not ${JSON.stringify(value)?.slice(0, 80)}`);
}

function promptLength({ prompt_length: length = PROMPT_LENGTH_DEFAULT, ...others }: Readonly<Record<string, unknown>>): number {
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw badField('tuner_cfg', `res_prefix has no option "${unknown.slice(0, 60)}"; it has prompt_length`);
  if (Number.isInteger(length) && (length as number) >= 1 && (length as number) <= PROMPT_LENGTH_MAX) return length as number;
  throw badField('tuner_cfg', `prompt_length must be a whole number from 1 to ${PROMPT_LENGTH_MAX}, not ${JSON.stringify(length)?.slice(0, 60)}`);
}

/** Kp and Vp, [1, K, n, D] each; Xavier-uniform per head. */
function prefixSlots(path: string, n: number, { keyValueHeads, headDim }: TunableModel): ParameterSlot[] {
  const bound = Math.sqrt(6 / (n + headDim));
  return ['prefix_k', 'prefix_v'].map((part) => ({ name: `${path}.${part}`, shape: [1, keyValueHeads, n, headDim], start: { type: 'uniform', bound } }));
}

function sitesOf({ stem_modules: given }: ResTuningSpec, { modules, modelType }: TunableModel, usual: readonly string[]): ModuleSite[] {
  const names = [...new Set(modules.map(({ path }) => path.replace(/\.\d+(?=\.|$)/, '.N')))].join(', ');
  if (given === null) {
    const sites = modules.filter(({ kind }) => usual.includes(kind));
    if (sites.length > 0) return sites;
    throw badField('kind', `ResTuning needs a decoder; this ${modelType} model has no modules that it could stand beside`);
  }
  if (typeof given === 'string') {
    const sites = modules.filter(({ path }) => matchesName(given, path));
    if (sites.length > 0) return sites;
    throw badField('stem_modules', `"${given}" matches no module of this ${modelType} model; it has ${names}`);
  }
  return given.map((path, index) => {
    const site = modules.find((each) => each.path === path);
    if (!site) throw badField('stem_modules', `"${path.slice(0, 200)}" is no module of this ${modelType} model; it has ${names}`);
    if (given.indexOf(path) !== index) throw badField('stem_modules', `"${path}" is listed twice`);
    return site;
  });
}
