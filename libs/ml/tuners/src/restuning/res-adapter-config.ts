import { badField } from '../spec-refusal';

/** What stands on one path of a block. Names and defaults are SWIFT's. @see modelscope/ms-swift `swift/tuners/restuning_components.py` */
export type ResTuner = { readonly type: 'identity' } | { readonly type: 'zero' } | ({ readonly type: 'adapter' } & ResAdapterConfig);

/** x + weight * (W2 gelu(W1 x + b1) + b2), or without the x before the plus. */
export interface ResAdapterConfig {
  /** h: W1 is [h, C], W2 is [C, h]. */
  readonly length: number;
  readonly weight: AdapterWeight;
}

/** Of the branch: none, one learned number, one per channel, or a constant. */
export type AdapterWeight = 'none' | 'scale' | 'scale_channel' | { readonly constant: number };

const LENGTH_DEFAULT = 32;
const LENGTH_MAX = 65_536;

/** Forms that SWIFT has for images. */
const IMAGES_ONLY: Readonly<Record<string, string>> = {
  res_group_adapter: 'groups the channels of images (its input must be [B, C, H, W])',
  upsample: 'enlarges images',
};

/**
 * One entry of a `tuner_cfg`: null, a name, or {name: {options}}.
 * @param block its number among `depth` of them, for options given per block
 * @throws TunefleetError `invalid_input`
 */
export function parseResTuner(value: unknown, block: number, depth: number, where: string): ResTuner {
  if (value === null || value === undefined) return { type: 'identity' };
  const [name, options] = nameAndOptions(value, where);
  switch (name) {
    case 'identity':
      return { type: 'identity' };
    case 'zero':
      return { type: 'zero' };
    case 'res_adapter':
      return { type: 'adapter', ...parseResAdapter(options, block, depth, where) };
    default: {
      const why = IMAGES_ONLY[name];
      if (why !== undefined) throw badField('tuner_cfg', `${where}: "${name}" ${why}; a language model has none, use "res_adapter"`);
      throw badField('tuner_cfg', `${where}: there is no "${name.slice(0, 60)}"; use "res_adapter", "identity" or "zero"`);
    }
  }
}

/** Options of a `res_adapter`. */
export function parseResAdapter(options: Readonly<Record<string, unknown>>, block: number, depth: number, where: string): ResAdapterConfig {
  // `adapter_type` SWIFT reads and does not use.
  const { adapter_length: given = LENGTH_DEFAULT, adapter_weight: weight = null, adapter_type: _unused, ...others } = options;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw badField('tuner_cfg', `${where}: res_adapter has no option "${unknown.slice(0, 60)}"; it has adapter_length and adapter_weight`);
  if (Array.isArray(given) && given.length !== depth) throw badField('tuner_cfg', `${where}: adapter_length lists ${given.length} blocks, there are ${depth}`);
  const length: unknown = Array.isArray(given) ? given[block] : given;
  if (!Number.isInteger(length) || (length as number) < 1 || (length as number) > LENGTH_MAX) {
    throw badField('tuner_cfg', `${where}: adapter_length must be a whole number from 1 to ${LENGTH_MAX}, or a list of one per block, not ${JSON.stringify(given)?.slice(0, 60)}`);
  }
  return { length: length as number, weight: parseWeight(weight, where) };
}

function parseWeight(value: unknown, where: string): AdapterWeight {
  if (value === null || value === 'scale_kv' || value === 'scale_kv_channel') return 'none';
  if (value === 'scale' || value === 'scale_channel') return value;
  const constant = typeof value === 'string' ? /^scalar(?:_[^_]*)*_(?<number>[^_]+)$/.exec(value)?.groups?.['number'] : undefined;
  if (constant !== undefined && constant.trim() !== '' && Number.isFinite(Number(constant))) return { constant: Number(constant) };
  if (value === 'gate') {
    throw badField('tuner_cfg', `${where}: adapter_weight "gate" is one number from all positions of an example, those after a token too, which a language model must not see; use "scale" or "scale_channel"`);
  }
  throw badField('tuner_cfg', `${where}: adapter_weight must be null, "scale", "scale_channel" or "scalar_<number>", not ${JSON.stringify(value)?.slice(0, 60)}`);
}

function nameAndOptions(value: unknown, where: string): [name: string, options: Readonly<Record<string, unknown>>] {
  if (typeof value === 'string') return [value, {}];
  if (isObject(value)) {
    const [entry, ...more] = Object.entries(value);
    if (entry && more.length === 0) {
      const [name, options] = entry;
      if (options === null || typeof options === 'string') return [name, {}];
      if (isObject(options)) return [name, options];
    }
  }
  throw badField('tuner_cfg', `${where} must be null, a name such as "res_adapter", or {"res_adapter": {"adapter_length": 32}}, not ${JSON.stringify(value)?.slice(0, 80)}`);
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
