import { invariant } from '@tunefleet/foundation';
import { selectOutputs, type FrozenMatrix, type Tensor } from '@tunefleet/ml-tensor';
import { frozenBias } from '../lora/bundles';
import { frozenTable } from '../lora/token-tables';
import type { BindableModel } from '../tuner';
import type { TrainedWeight } from './plan';

/** What a model holds of a weight, in the layout of the checkpoint, f32 on the host. Of a quantised map what its codes stand for. */
export function frozenWeight(model: BindableModel, { source, name }: Pick<TrainedWeight, 'source' | 'name'>): Float32Array {
  const { device } = model;
  switch (source.type) {
    case 'embeddings':
      return frozenTable(model, null);
    case 'head':
      invariant(model.head, 'a decoder has a head');
      return frozenTable(model, model.head);
    case 'positions':
      invariant(model.positions, `the model has no "${name}"`);
      return device.readFloats(model.positions);
    case 'map':
      return device.scope(() => device.readFloats(matrixOf(model, source.path, source.fanInFanOut)));
    case 'map-bias':
      return device.scope(() => device.readFloats(frozenBias(model, source.path)));
    case 'norm': {
      const norm = model.norms.find(({ path }) => path === source.path);
      const tensor = source.part === 'weight' ? norm?.weight : norm?.bias;
      invariant(norm && tensor, `the model has no "${name}"`);
      const values = device.readFloats(tensor);
      return norm.centred && source.part === 'weight' ? values.map((value) => value - 1) : values;
    }
  }
}

function matrixOf({ device, projectionGroups }: BindableModel, path: string, fanInFanOut: boolean): Tensor {
  const found = projectionGroups.flatMap(({ maps, members }) => members.filter((member) => member.path === path).map(({ map, row, outSize }) => ({ weight: maps[map]?.weight as FrozenMatrix, row, outSize })))[0];
  invariant(found, `the model has no map "${path}"`);
  const { value, layout } = selectOutputs(found.weight, found.row, found.outSize);
  return (layout === 'inOut') === fanInFanOut ? value : device.primitives.transpose(value, [1, 0]);
}
