import type { Architecture } from './architecture';
import type { ModelType } from './architecture-specs';
import { gatedDecoder } from './decoder/gated-decoder';
import { parseLlama } from './llama/spec';

/** The computing half of every architecture in `architecture-specs.ts`. */
export const architectures: Readonly<Record<ModelType, Architecture>> = {
  llama: gatedDecoder(parseLlama),
};
