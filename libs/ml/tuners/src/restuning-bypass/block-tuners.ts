import { badField } from '../spec-refusal';
import { isObject, parseResTuner, type ResTuner } from '../restuning/res-adapter-config';

/** The two paths of one block. */
export interface BlockTuners {
  /** From the stem. */
  readonly lateral: ResTuner;
  /** From the block before. */
  readonly vertical: ResTuner;
}

const PARTS = ['lateral_cfg', 'vertical_cfg', 'aux_cfg'];

/**
 * What a `tuner_cfg` says of one block.
 * @param depth number of blocks; null: not known yet
 * @throws TunefleetError `invalid_input`
 */
export function blockTuners(config: unknown, block: number, depth: number | null): BlockTuners {
  if (Array.isArray(config)) {
    if (config.length === 0 || (depth !== null && config.length !== depth)) throw badField('tuner_cfg', `lists ${config.length} blocks, the bypass has ${depth ?? 'at least 1'}, one per stem`);
    return parseBlock(config[block], block, config.length, `block ${block}`);
  }
  return parseBlock(config, block, depth, 'tuner_cfg');
}

function parseBlock(config: unknown, block: number, depth: number | null, where: string): BlockTuners {
  const parts = partsOf(config, where);
  if (parts['aux_cfg'] !== null && parts['aux_cfg'] !== undefined) throw badField('tuner_cfg', `${where}: aux_cfg enlarges images; a language model has none, leave it out`);
  const parse = (name: 'lateral_cfg' | 'vertical_cfg'): ResTuner => parseResTuner(parts[name], block, depth ?? lengthsListed(parts[name]), `${where}.${name}`);
  const tuners = { lateral: parse('lateral_cfg'), vertical: parse('vertical_cfg') };
  if (tuners.lateral.type === 'zero' && tuners.vertical.type === 'zero') throw badField('tuner_cfg', `${where}: with both paths "zero" nothing is left of the input`);
  return tuners;
}

function partsOf(config: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof config === 'string') return { lateral_cfg: config, vertical_cfg: config };
  if (isObject(config)) {
    const wrong = Object.keys(config).find((name) => !PARTS.includes(name));
    if (wrong === undefined) return config;
    throw badField('tuner_cfg', `${where}: "${wrong.slice(0, 60)}" stands where lateral_cfg and vertical_cfg are expected, as in {"lateral_cfg": {"res_adapter": {"adapter_length": 16}}, "vertical_cfg": "res_adapter"}`);
  }
  throw badField('tuner_cfg', `${where} must be a name such as "res_adapter", an object with lateral_cfg and vertical_cfg, or a list of these per block`);
}

/** A list's own length, as long as nothing says how long it should be. */
function lengthsListed(part: unknown): number {
  const options = isObject(part) ? part['res_adapter'] : null;
  const lengths = isObject(options) ? options['adapter_length'] : null;
  return Array.isArray(lengths) ? lengths.length : 1;
}
