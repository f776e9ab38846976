import type { ModuleKind, ModuleSite } from '@tunefleet/ml-nn';

/** Module paths of one block, under which tuners find what it computes. */
export interface BlockPaths {
  readonly block: string;
  readonly attention: string;
  /** The linear map at the end of attention; its output is attention's. */
  readonly attentionOutput: string;
  readonly mlp: string;
  /** The linear map at the end of the MLP; its output is the MLP's. */
  readonly mlpOutput: string;
}

export interface BlockSizes {
  readonly hiddenSize: number;
  /** Heads times head width. */
  readonly attentionWidth: number;
  readonly intermediateSize: number;
}

/** The modules of a decoder whose output a tuner may change, in forward order. */
export function moduleSites(paths: readonly BlockPaths[], finalNorm: string, { hiddenSize: C, attentionWidth, intermediateSize: F }: BlockSizes): ModuleSite[] {
  const inBlocks = paths.flatMap(({ block, attention, attentionOutput, mlp, mlpOutput }, layer) => {
    const site = (path: string, kind: ModuleKind, inSize: number): ModuleSite => ({ path, kind, layer, inSize, outSize: C });
    return [site(attentionOutput, 'attention-output', attentionWidth), site(attention, 'attention', C), site(mlpOutput, 'mlp-output', F), site(mlp, 'mlp', C), site(block, 'block', C)];
  });
  return [...inBlocks, { path: finalNorm, kind: 'final-norm', layer: paths.length, inSize: C, outSize: C }];
}
