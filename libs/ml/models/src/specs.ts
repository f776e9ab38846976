/** TensorFlow-free half of the models library: schemas and estimates that the control plane, CLI and console may import. */
export * from './llama/spec';
export * from './weight-source';
export * from './sources';
