import type { NormSite } from '@tunefleet/ml-nn';
import type { Device, FloatDType } from '@tunefleet/ml-tensor';
import type { Architecture, LoadedWeight } from '../architecture';
import type { CausalLm } from '../causal-lm';
import { FrozenParts } from '../decoder/frozen-parts';
import type { DecoderBlock } from '../decoder/block';
import { DecoderModel } from '../decoder/model';
import { gpt2KeysValues, runGpt2Block, type Gpt2Block } from './block';
import { parseGpt2, type Gpt2Config } from './spec';
import { gpt2BlockMaps, gpt2BlockNorms, gpt2BlockPaths, gpt2FinalNorm, gpt2Tables, gpt2Weights, isRedundantGpt2Weight } from './weight-table';

export const gpt2: Architecture = {
  weights(value) {
    const config = parseGpt2(value);
    return { expected: gpt2Weights(config), isRedundant: (name) => isRedundantGpt2Weight(config, name) };
  },
  build: (device, value, computeDtype, weight) => build(device, parseGpt2(value), computeDtype, weight),
};

function build(device: Device, config: Gpt2Config, computeDtype: FloatDType, weight: (name: string) => LoadedWeight): CausalLm {
  const parts = new FrozenParts(device, weight);
  const norm = (site: NormSite) => parts.norm(site, config.normEpsilon);
  const tokens = parts.tensor('transformer.wte.weight');
  const places = parts.tensor('transformer.wpe.weight');
  const blocks = Array.from({ length: config.layers }, (_, layer): DecoderBlock => {
    const [maps, norms] = [gpt2BlockMaps(config, layer), gpt2BlockNorms(config, layer)];
    const block: Gpt2Block = {
      layer,
      paths: gpt2BlockPaths(config, layer),
      heads: config.heads,
      attentionScale: config.attentionScale(layer),
      attentionNorm: norm(norms.attention),
      qkv: parts.group([maps.qkv]),
      output: parts.group([maps.output]),
      mlpNorm: norm(norms.mlp),
      up: parts.group([maps.up]),
      down: parts.group([maps.down]),
    };
    return {
      paths: block.paths,
      groups: [block.qkv, block.output, block.up, block.down],
      kind: 0,
      run: (x, context) => runGpt2Block(block, x, context),
      keysValues: (x, context) => gpt2KeysValues(block, x, context),
    };
  });
  const finalNorm = norm(gpt2FinalNorm(config));
  return new DecoderModel(
    device,
    {
      modelType: 'gpt2',
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      intermediateSize: config.intermediateSize,
      heads: config.heads,
      keyValueHeads: config.heads,
      headDim: config.hiddenSize / config.heads,
      maxPositions: config.maxPositions,
      kinds: [{ inverseFrequencies: null, window: null }],
      tables: gpt2Tables(config),
      embeddings: tokens,
      embeddingScale: 1,
      positions: places,
      blocks,
      norms: parts.norms,
      finalNorm,
      head: config.tiedHead ? parts.tiedHead(tokens, null) : parts.head('lm_head.weight', null),
      owned: parts.owned,
    },
    computeDtype,
  );
}
