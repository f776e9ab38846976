import { formatAdapterConfig, formatModelCard, type AdapterTensor } from '@tunefleet/ml-formats';
import { tensorsOf } from '../named-parameters/named-tensors';
import type { ParameterSlot } from '../named-parameters/parameter-slots';
import type { BypassSpec } from './spec';
import type { BypassWiring } from './wiring';

/**
 * A bypass as SWIFT stores it. Modules are written by full path, so that reading it back does not depend on how they were named; thinned stems as the list of
 * those that are left. Fields that only we know are written where they are in use.
 */
export function bypassFiles(
  spec: BypassSpec,
  { names, blocks }: BypassWiring,
  slots: readonly ParameterSlot[],
  values: Float32Array,
  base: { readonly id: string; readonly revision: string },
): { readonly config: string; readonly tensors: readonly AdapterTensor[]; readonly card: string } {
  const config = {
    swift_type: 'RESTUNING',
    model_key_mapping: null,
    dims: spec.dims ?? widthOf(slots),
    root_modules: names.root.path,
    root_modules_hook: names.root.hook,
    stem_modules: names.stems,
    stem_modules_hook: spec.stem_modules_hook,
    target_modules: names.target,
    target_modules_hook: 'input',
    target_hidden_pos: 0,
    tuner_cfg: spec.tuner_cfg,
    use_upsample: false,
    upsample_out_channels: null,
    zero_init_last: spec.zero_init_last,
    use_bypass: true,
    ...(spec.bypass_init === null ? {} : { bypass_init: spec.bypass_init }),
    ...(spec.bypass_mix === 'sum' ? {} : { bypass_mix: spec.bypass_mix }),
  };
  const ours = 'bypass_init' in config || 'bypass_mix' in config;
  return {
    config: formatAdapterConfig(config),
    tensors: tensorsOf(slots, values),
    card: formatModelCard({
      title: `ResTuning-Bypass of ${base.id}`,
      base: base.id,
      revision: base.revision,
      tag: 'restuning-bypass',
      method: `ResTuning-Bypass, ${blocks.length} blocks`,
      library: ours ? 'tunefleet' : 'swift',
      facts: [`Parameters: ${values.length}`, ...(ours ? ['bypass_init and bypass_mix are not known to SWIFT, which would compute something else'] : [])],
    }),
  };
}

function widthOf(slots: readonly ParameterSlot[]): number | null {
  const weight = slots.find(({ name }) => name.endsWith('.ln1.weight'));
  return weight?.shape[1] ?? null;
}
