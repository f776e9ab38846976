import { ZERO, type ParameterSlot } from '../named-parameters/parameter-slots';
import { resAdapterSlots } from '../restuning/res-adapter';
import type { BypassWiring } from './wiring';

/** Parameters by block: lateral, vertical, then ours: the factor of the carried path, or the gate (both rank 0). @param name of the adapter */
export function bypassSlots({ blocks, width }: BypassWiring, name: string): ParameterSlot[] {
  return blocks.flatMap(({ lateral, vertical, carried, mixed, silent }, index) => {
    const path = `restuning_${name}.bypass_blocks.${index}`;
    return [
      ...(lateral.type === 'adapter' ? resAdapterSlots(`${path}.lateral_tuner.tuner`, width, lateral, silent.lateral) : []),
      ...(vertical.type === 'adapter' ? resAdapterSlots(`${path}.vertical_tuner.tuner`, width, vertical, silent.vertical) : []),
      ...(carried ? [{ name: `${path}.carry`, shape: [], start: ZERO }] : []),
      ...(mixed ? [{ name: `${path}.mix`, shape: [], start: ZERO }] : []),
    ];
  });
}
