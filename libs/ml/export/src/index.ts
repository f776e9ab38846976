/** Takes adapters out of the product: merged into their base's weights, or in other layouts. Works from files; no device is needed. */
export { exportMerged, type MergedExport } from './merged/export-merged';
export { MergedWeights, type MergedTensor } from './merged/merged-weights';
export { compareHooks, largestDifference, type VerifiedMerge } from './merged/verify';
export { exportGguf, exportGgufAdapter, isGgmlType, type GgufExport } from './gguf/export-gguf';
export { exportPeft, exportSwift, type NamedAdapters } from './folders/export-folder';
export { exportCombined, type CombinedExport } from './combined/export-combined';
