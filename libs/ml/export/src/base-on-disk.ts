import { bf16ArrayToF32, f16ToF32 } from '@tunefleet/ml-formats';
import { describeCausalLm, type Checkpoint, type WeightData } from '@tunefleet/ml-models';
import type { BaseOnDisk } from '@tunefleet/ml-tuners';

/** A base as tuners see it. @param checkpoint borrowed; `table` reads from it */
export function baseOnDisk(checkpoint: Checkpoint, config: unknown): BaseOnDisk {
  const description = describeCausalLm(config);
  const { embedding, head, tied } = description.tables;
  return { ...description, table: (kind) => toFloats(checkpoint.load(`${kind === 'head' && !tied ? head : embedding}.weight`)) };
}

/** A tensor of a checkpoint as f32, in a new array. */
export function toFloats({ data, dtype }: WeightData): Float32Array {
  const bytes = data.slice().buffer;
  switch (dtype) {
    case 'F32':
      return new Float32Array(bytes);
    case 'BF16':
      return bf16ArrayToF32(new Uint16Array(bytes));
    case 'F16':
      return Float32Array.from(new Uint16Array(bytes), f16ToF32);
  }
}
