import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, formatAdapterConfig, formatModelCard, MODEL_CARD, writeSafetensors } from '@tunefleet/ml-formats';
import { sizeOf } from '../named-parameters/parameter-slots';
import type { TrainedWeight } from './plan';
import type { FullSpec } from './spec';

/** What `adapter_config.json` says of the method: no other library has one of the kind. */
export const FULL_TYPE = 'FULL';

export interface FullWeights {
  readonly spec: FullSpec;
  readonly weights: readonly TrainedWeight[];
  readonly values: Float32Array;
  readonly base: { readonly id: string; readonly revision: string };
}

/** Writes the trained tensors, f32, under the names of the checkpoint, with as much memory as the largest takes; the configuration comes last. */
export async function saveFull(folder: string, { spec, weights, values, base }: FullWeights): Promise<void> {
  const { kind: _kind, ...fields } = spec;
  const revision = /^[0-9a-f]{40}$/.test(base.revision) ? base.revision : null;
  const places = new Map<string, Uint8Array>();
  let at = 0;
  for (const { name, shape } of weights) {
    const size = sizeOf(shape);
    places.set(name, new Uint8Array(values.buffer, values.byteOffset + 4 * at, 4 * size));
    at += size;
  }
  const what = spec.last_blocks === null ? 'all blocks' : `the last ${spec.last_blocks} blocks`;
  const card = formatModelCard({
    title: `Tuned weights of ${base.id}`,
    base: base.id,
    revision,
    tag: 'full',
    method: `Full fine-tuning, ${what}`,
    library: 'tunefleet',
    facts: [
      `Parameters: ${values.length}`,
      'The tensors have the names they have in the base: load the base with Transformers, then model.load_state_dict(load_file("adapter_model.safetensors"), strict=False)',
      'As a model folder of its own: tunefleet adapters export --format merged',
    ],
  });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, MODEL_CARD), card);
  await writeSafetensors(join(folder, ADAPTER_WEIGHTS), weights.map(({ name, shape }) => ({ name, dtype: 'F32', shape })), ({ name }) => places.get(name) as Uint8Array);
  const partial = join(folder, `${ADAPTER_CONFIG}.partial`);
  await writeFile(partial, formatAdapterConfig({ tunefleet_type: FULL_TYPE, base_model_name_or_path: base.id, revision, ...fields }), { flush: true });
  await rename(partial, join(folder, ADAPTER_CONFIG));
}
