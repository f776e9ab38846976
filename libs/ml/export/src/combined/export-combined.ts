import { loraAdapterConfigSchema, readAdapterFiles, writeLoraAdapter, type AdapterTensor } from '@tunefleet/ml-formats';
import { Checkpoint } from '@tunefleet/ml-models';
import { combineLoras, loraFactorsOf, type CombineOptions } from '@tunefleet/ml-tuners';
import { baseOnDisk } from '../base-on-disk';
import { inNewFolder } from '../merged/export-merged';

export interface CombinedExport extends CombineOptions {
  readonly base: { readonly id: string; readonly revision: string | null; readonly folder: string; readonly config: unknown };
  readonly adapters: readonly { readonly folder: string; readonly weight: number }[];
}

/**
 * Combines LoRAs of one base into one, and writes it as a PEFT folder of scale 1.
 * @returns its rank
 * @throws TunefleetError `invalid_input`: options that do not fit; `incompatible_artifact`: not LoRAs of this base; `conflict`: the folder holds files
 */
export async function exportCombined(folder: string, { base, adapters, ...options }: CombinedExport): Promise<number> {
  using checkpoint = Checkpoint.open(base.folder, base.config);
  const onDisk = baseOnDisk(checkpoint, base.config);
  const loras = [];
  for (const { folder: source, weight } of adapters) loras.push({ name: source, weight, targets: loraFactorsOf(onDisk, await readAdapterFiles(source), 'be combined') });
  const { rank, targets } = combineLoras(loras, options);
  const tensors = targets.flatMap(({ path, a, b, inSize, outSize }) => [tensorOf(`${path}.lora_A.weight`, [rank, inSize], a), tensorOf(`${path}.lora_B.weight`, [outSize, rank], b)]);
  const config = loraAdapterConfigSchema.parse({
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base.id,
    revision: base.revision,
    r: rank,
    lora_alpha: rank,
    target_modules: targets.map(({ path }) => path),
    fan_in_fan_out: targets.some(({ fanInFanOut }) => fanInFanOut),
  });
  const facts = loras.map(({ name, weight }) => `Combined (${options.combination}): ${weight} of ${name.split(/[\\/]/).at(-1)}`);
  await inNewFolder(folder, (partial) => writeLoraAdapter(partial, { config, tensors }, { title: `Combined LoRA adapter of ${base.id}`, facts }));
  return rank;
}

function tensorOf(name: string, shape: readonly number[], values: Float32Array): AdapterTensor {
  return { name, dtype: 'F32', shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}
