import type { Architecture } from './architecture';
import { decoderFamily, type ModelType } from './architecture-specs';
import { gatedDecoder } from './decoder/gated-decoder';
import { gpt2 } from './gpt2/load';
import { mapValues } from './map-values';

/** The computing half of every architecture in `architecture-specs.ts`. */
export const architectures: Readonly<Record<ModelType, Architecture>> = {
  ...mapValues(decoderFamily, gatedDecoder),
  gpt2,
};
