import { invariant } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { frozenMatrix, type Device, type FloatDType, type FrozenMap, type FrozenMatrix, type Tensor } from '@tunefleet/ml-tensor';
import type { Architecture } from '../architecture';
import type { CausalLm } from '../causal-lm';
import { parseModelConfig } from '../parse-config';
import { LlamaModel } from './model';
import type { LlamaBlock } from './block';
import { llamaConfigSchema, type LlamaConfig } from './spec';
import { blockProjections, isRedundantWeight, llamaWeights, type LlamaProjection } from './weight-table';

export const llama: Architecture = {
  weights(value) {
    const config = parseModelConfig(llamaConfigSchema, value);
    return { expected: llamaWeights(config), isRedundant: (name) => isRedundantWeight(config, name) };
  },
  build: (device, value, computeDtype, weight) => buildLlama(device, parseModelConfig(llamaConfigSchema, value), computeDtype, weight),
};

/** @param weight gives up each loaded tensor once */
function buildLlama(device: Device, config: LlamaConfig, computeDtype: FloatDType, weight: (name: string) => Tensor): CausalLm {
  const owned: Tensor[] = [];
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor);
    return tensor;
  };
  const matrix = (tensor: Tensor): FrozenMatrix => {
    const result = frozenMatrix(device, tensor);
    own(result.value);
    return result;
  };
  const norm = (name: string): Tensor => own(weight(name));
  /** One map of several projections, one below the other. */
  const stacked = (names: readonly string[]): Tensor => {
    const parts = names.map(weight);
    const [only] = parts;
    if (parts.length === 1 && only) return only;
    const all = device.primitives.concat(parts, 0);
    for (const part of parts) part.dispose();
    return all;
  };
  const frozen = (projections: readonly LlamaProjection[]): FrozenMap => {
    const biased = projections.some(({ bias }) => bias);
    return {
      weight: matrix(stacked(projections.map(({ path }) => `${path}.weight`))),
      bias: biased ? own(stacked(projections.map(({ path }) => `${path}.bias`))) : null,
    };
  };
  const group = (...maps: readonly (readonly LlamaProjection[])[]): ProjectionGroup => ({
    maps: maps.map(frozen),
    members: maps.flatMap((projections, map) => {
      let row = 0;
      return projections.map(({ path, inSize, outSize }) => {
        const member = { path, inSize, outSize, map, row };
        row += outSize;
        return member;
      });
    }),
  });
  const block = (layer: number): LlamaBlock => {
    const [q, k, v, o, gate, up, down] = blockProjections(config, layer);
    invariant(q && k && v && o && gate && up && down, 'seven linear maps');
    const path = `model.layers.${layer}`;
    return {
      layer,
      inputNorm: norm(`${path}.input_layernorm.weight`),
      postNorm: norm(`${path}.post_attention_layernorm.weight`),
      qkv: group([q, k, v]),
      o: group([o]),
      gateUp: group([gate], [up]),
      down: group([down]),
    };
  };
  const table = own(weight('model.embed_tokens.weight'));
  const blocks = Array.from({ length: config.num_hidden_layers }, (_, layer) => block(layer));
  const head = config.tie_word_embeddings ? tiedHead(device, table, own) : matrix(weight('lm_head.weight'));
  return new LlamaModel(device, config, { embedding: table, blocks, norm: norm('model.norm.weight'), head, owned }, computeDtype);
}

/** The embedding table as the head; a second copy only where the device wants it the other way round. */
function tiedHead(device: Device, table: Tensor, own: (tensor: Tensor) => Tensor): FrozenMatrix {
  const [outSize, inSize] = [table.dim(0), table.dim(1)];
  if (!device.backend.prefersUntransposedWeights) return { value: table, layout: 'outIn', outSize, inSize };
  return { value: own(device.primitives.transpose(table, [1, 0])), layout: 'inOut', outSize, inSize };
}
