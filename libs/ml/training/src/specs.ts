/** TensorFlow-free half of the training library: what the control plane needs to plan a run. */
export { stepMemoryBytes, type StepShape } from './step-memory';
