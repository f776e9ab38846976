import { EIGHT_BIT_BLOCK, FOUR_BIT_BLOCK } from '@tunefleet/ml-formats';
import type { QuantisedWeights, ShapesDevice, Tensor } from '@tunefleet/ml-tensor';
import type { CausalLm, Precision } from '../causal-lm';
import { describeCausalLm, modelTypeOf } from '../architecture-specs';
import { architectures, checkpointTensors } from '../registry';

/** A model without weights, to count the bytes of what is done with it. @param config config.json, unchecked   @returns the caller's   @throws TunefleetError `incompatible_artifact` */
export function shapeCausalLm(device: ShapesDevice, config: unknown, { computeDtype, weightDtype, quantisation }: Precision): CausalLm {
  const maps = new Map(describeCausalLm(config).projections.map(({ path, inSize, outSize }) => [`${path}.weight`, { inSize, outSize }]));
  const shapes = new Map(checkpointTensors(config).map(({ name, shape }) => [name, shape]));
  // As when they are loaded, tables are shared between matrices, each of which holds them.
  using pairs = device.shaped([256, 2], 'f32');
  using steps = device.shaped([256], 'f32');
  return architectures[modelTypeOf(config)].build(device, config, computeDtype, (name) => {
    const map = maps.get(name);
    if (map && quantisation) return fourBit(device, map, quantisation.doubleQuant, { pairs, steps });
    const shape = shapes.get(name) as readonly number[];
    return device.shaped(shape, shape.length > 1 ? weightDtype : computeDtype);
  });
}

function fourBit(
  device: ShapesDevice,
  { inSize, outSize }: { readonly inSize: number; readonly outSize: number },
  doubleQuant: boolean,
  { pairs, steps }: { readonly pairs: Tensor; readonly steps: Tensor },
): QuantisedWeights {
  const blocks = Math.ceil((inSize * outSize) / FOUR_BIT_BLOCK);
  return {
    packed: device.shaped([Math.ceil((inSize * outSize) / 2)], 'u8'),
    table: device.alias(pairs),
    scales: doubleQuant
      ? { codes: device.shaped([blocks], 'u8'), map: device.alias(steps), maxima: device.shaped([Math.ceil(blocks / EIGHT_BIT_BLOCK)], 'f32'), offset: 0, blockSize: EIGHT_BIT_BLOCK }
      : { values: device.shaped([blocks], 'f32') },
    blockSize: FOUR_BIT_BLOCK,
    outSize,
    inSize,
  };
}
