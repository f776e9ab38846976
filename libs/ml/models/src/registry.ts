import type { Architecture } from './architecture';
import { decoderFamily, modelTypeOf, type ModelType } from './architecture-specs';
import { gatedDecoder } from './decoder/gated-decoder';
import { gpt2 } from './gpt2/load';
import type { ExpectedWeight } from './loading/weight-loader';
import { mapValues } from './map-values';

/** The computing half of every architecture in `architecture-specs.ts`. */
export const architectures: Readonly<Record<ModelType, Architecture>> = {
  ...mapValues(decoderFamily, gatedDecoder),
  gpt2,
};

/** Name and shape of every tensor of a checkpoint. @throws TunefleetError `incompatible_artifact` */
export function checkpointTensors(config: unknown): readonly ExpectedWeight[] {
  return architectures[modelTypeOf(config)].weights(config).expected;
}
