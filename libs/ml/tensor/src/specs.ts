/** TensorFlow-free half of the tensor library: how ops cut their work, for estimates of what they take. */
export { causalBlocks, keepsProbabilities, keysIn, scoredPairs, type QueryBlock } from './ops/attention/query-blocks';
export { logitRowsAtOnce } from './ops/head-cross-entropy/logit-chunks';
