import type { NormSite } from '@tunefleet/ml-nn';
import type { Device, FloatDType } from '@tunefleet/ml-tensor';
import type { Architecture, LoadedWeight } from '../architecture';
import type { CausalLm } from '../causal-lm';
import type { DecoderConfig, LayerSettings } from './config';
import { FrozenParts } from './frozen-parts';
import type { DecoderBlock } from './block';
import { gatedKeysValues, runGatedBlock, type GatedBlock } from './gated-block';
import { DecoderModel } from './model';
import { inverseFrequencies } from './rope-frequencies';
import { blockMaps, blockNorms, blockPaths, decoderWeights, finalNorm, isRedundantWeight, tokenTables } from './weight-table';

/** The computing half of a model type that is a decoder with RMS norms, rotary positions and gated MLPs. @param parse throws `incompatible_artifact` */
export function gatedDecoder(parse: (config: unknown) => DecoderConfig): Architecture {
  return {
    weights(value) {
      const config = parse(value);
      return { expected: decoderWeights(config), isRedundant: (name) => isRedundantWeight(config, name) };
    },
    build: (device, value, computeDtype, weight) => build(device, parse(value), computeDtype, weight),
  };
}

function build(device: Device, config: DecoderConfig, computeDtype: FloatDType, weight: (name: string) => LoadedWeight): CausalLm {
  const parts = new FrozenParts(device, weight);
  const norm = (site: NormSite) => parts.norm(site, config.normEpsilon);
  const optionalNorm = (site: NormSite | null) => site && norm(site);
  const kinds = distinctKinds(config.layers);
  const table = parts.tensor('model.embed_tokens.weight');
  const blocks = config.layers.map((settings, layer): DecoderBlock => {
    const [maps, norms] = [blockMaps(config, layer), blockNorms(config, layer)];
    const block: GatedBlock = {
      layer,
      paths: blockPaths(config, layer),
      inputNorm: norm(norms.input),
      qkv: parts.group(maps.qkv),
      headNorms: norms.query !== null && norms.key !== null ? { query: norm(norms.query), key: norm(norms.key) } : null,
      output: parts.group([maps.output]),
      attentionOutputNorm: optionalNorm(norms.attentionOutput),
      mlpInputNorm: norm(norms.mlpInput),
      gateUp: parts.group(...maps.gateUp.map((map) => [map])),
      down: parts.group([maps.down]),
      mlpOutputNorm: optionalNorm(norms.mlpOutput),
    };
    return {
      paths: block.paths,
      groups: [block.qkv, block.output, block.gateUp, block.down],
      kind: kinds.findIndex((kind) => sameKind(kind, settings)),
      run: (x, context) => runGatedBlock(config, block, x, context),
      keysValues: (x, context) => gatedKeysValues(config, block, x, context),
    };
  });
  const last = norm(finalNorm(config));
  return new DecoderModel(
    device,
    {
      ...config,
      kinds: kinds.map(({ rope, window }) => ({ inverseFrequencies: inverseFrequencies(rope, config.headDim), window })),
      tables: tokenTables(config),
      embeddings: table,
      blocks,
      norms: parts.norms,
      finalNorm: last,
      head: config.tiedHead ? parts.tiedHead(table, config.logitSoftcap) : parts.head('lm_head.weight', config.logitSoftcap),
      owned: parts.owned,
    },
    computeDtype,
  );
}

function distinctKinds(layers: readonly LayerSettings[]): LayerSettings[] {
  return layers.filter((layer, index) => layers.findIndex((other) => sameKind(other, layer)) === index);
}

function sameKind(a: LayerSettings, b: LayerSettings): boolean {
  return a.window === b.window && JSON.stringify(a.rope) === JSON.stringify(b.rope);
}
