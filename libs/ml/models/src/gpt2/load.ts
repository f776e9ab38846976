import { TunefleetError } from '@tunefleet/foundation';
import { add, embedding, layerNorm, type Device, type FloatDType } from '@tunefleet/ml-tensor';
import type { Architecture, LoadedWeight } from '../architecture';
import type { CausalLm } from '../causal-lm';
import { FrozenParts } from '../decoder/frozen-parts';
import type { DecoderBlock } from '../decoder/block';
import { DecoderModel } from '../decoder/model';
import { gpt2KeysValues, runGpt2Block, type Gpt2Block, type LayerNormWeights } from './block';
import { parseGpt2, type Gpt2Config } from './spec';
import { GPT2_FINAL_NORM, gpt2BlockMaps, gpt2BlockPaths, gpt2Tables, gpt2Weights, isRedundantGpt2Weight } from './weight-table';

export const gpt2: Architecture = {
  weights(value) {
    const config = parseGpt2(value);
    return { expected: gpt2Weights(config), isRedundant: (name) => isRedundantGpt2Weight(config, name) };
  },
  build: (device, value, computeDtype, weight) => build(device, parseGpt2(value), computeDtype, weight),
};

function build(device: Device, config: Gpt2Config, computeDtype: FloatDType, weight: (name: string) => LoadedWeight): CausalLm {
  const parts = new FrozenParts(device, weight);
  const norm = (name: string): LayerNormWeights => ({ weight: parts.tensor(`transformer.${name}.weight`), bias: parts.tensor(`transformer.${name}.bias`) });
  const tokens = parts.tensor('transformer.wte.weight');
  const places = parts.tensor('transformer.wpe.weight');
  const blocks = Array.from({ length: config.layers }, (_, layer): DecoderBlock => {
    const maps = gpt2BlockMaps(config, layer);
    const block: Gpt2Block = {
      layer,
      paths: gpt2BlockPaths(config, layer),
      heads: config.heads,
      attentionScale: config.attentionScale(layer),
      normEpsilon: config.normEpsilon,
      attentionNorm: norm(`h.${layer}.ln_1`),
      qkv: parts.group([maps.qkv]),
      output: parts.group([maps.output]),
      mlpNorm: norm(`h.${layer}.ln_2`),
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
  const finalNorm = norm('ln_f');
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
      addPositions(x, positions) {
        checkPositions(positions, config.maxPositions);
        return add(x, embedding(places, positions, computeDtype));
      },
      blocks,
      finalNormPath: GPT2_FINAL_NORM,
      finalNorm: (x) => layerNorm(x, finalNorm.weight, finalNorm.bias, config.normEpsilon),
      head: config.tiedHead ? parts.tiedHead(tokens, null) : parts.head('lm_head.weight', null),
      owned: parts.owned,
    },
    computeDtype,
  );
}

/** Learned positions end, whatever the length of the row. */
function checkPositions(positions: Int32Array, most: number): void {
  const beyond = positions.find((position) => position >= most);
  if (beyond === undefined) return;
  throw new TunefleetError('invalid_input', `a sequence of ${beyond + 1} tokens or more is longer than the ${most} positions this model has learned; shorten it`, {
    reason: 'sequence_too_long',
    details: { length: beyond + 1, maxPositions: most },
  });
}
