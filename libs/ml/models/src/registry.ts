import type { Architecture } from './architecture';
import type { ModelType } from './architecture-specs';
import { llama } from './llama/load';

/** The computing half of every architecture in `architecture-specs.ts`. */
export const architectures: Readonly<Record<ModelType, Architecture>> = {
  llama,
};
