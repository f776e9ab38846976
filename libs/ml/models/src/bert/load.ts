import type { Device, FloatDType, FrozenMap } from '@tunefleet/ml-tensor';
import type { Architecture, LoadedWeight } from '../architecture';
import { FrozenParts } from '../decoder/frozen-parts';
import type { Encoder } from '../encoder';
import { loadModel, type LoadOptions } from '../loading/load-causal-lm';
import { BertModel } from './model';
import { parseBert, type BertConfig } from './spec';
import { bertBlockMaps, bertPooler, bertPrefix, bertWeights, isRedundantBertWeight } from './weight-table';

const bert: Architecture<Encoder> = {
  weights: (value) => ({ expected: bertWeights(parseBert(value)), isRedundant: isRedundantBertWeight }),
  build: (device, value, computeDtype, weight) => build(device, parseBert(value), computeDtype, weight),
};

/** As `loadCausalLm`, for BERT with or without a classifier. */
export function loadBert(device: Device, options: LoadOptions): Promise<Encoder> {
  return loadModel(device, options, bert);
}

function build(device: Device, config: BertConfig, computeDtype: FloatDType, weight: (name: string) => LoadedWeight): Encoder {
  const parts = new FrozenParts(device, weight);
  const prefix = bertPrefix(config);
  const table = (name: string) => parts.tensor(`${prefix}embeddings.${name}_embeddings.weight`);
  const norm = (name: string, layer: number) => parts.norm({ path: `${prefix}${name}`, layer, size: config.hiddenSize, biased: true }, config.normEpsilon);
  const first = norm('embeddings.LayerNorm', -1);
  const blocks = Array.from({ length: config.layers }, (_, layer) => {
    const { qkv, output, up, down } = bertBlockMaps(config, layer);
    const path = `encoder.layer.${layer}`;
    return {
      heads: config.heads,
      qkv: parts.group(qkv),
      output: parts.group([output]),
      attentionNorm: norm(`${path}.attention.output.LayerNorm`, layer),
      up: parts.group([up]),
      down: parts.group([down]),
      mlpNorm: norm(`${path}.output.LayerNorm`, layer),
    };
  });
  const { classes, hiddenSize } = config;
  const classifier = classes === null ? null : { pooler: parts.group([bertPooler(config)]), map: parts.group([{ path: 'classifier', inSize: hiddenSize, outSize: classes, bias: true }]).maps[0] as FrozenMap };
  const [words, places, types] = [table('word'), table('position'), table('token_type')];
  return new BertModel(device, config, { words, places, types, norm: first, norms: parts.norms, blocks, classifier, owned: parts.owned }, computeDtype);
}
