/** Model sources: hub, local folders, package mirrors. Nothing here touches TensorFlow. */
export { withFolderLock, type LockOptions } from './folder-lock';
export { mirrorCatalogue, mirrorRevision, type MirrorEntry } from './mirror-catalogue';
export { ModelCache, cacheDirectory } from './model-cache';
export { parseModelId, type ModelId } from './model-id';
export { ModelResolver, modelResolverOptions, type ModelResolverOptions } from './model-resolver';
export { SafetensorsWeights } from './safetensors-weights';
export type { StoredFourBit } from './stored-four-bit';
export * from './types';
