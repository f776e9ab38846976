/** TensorFlow-free half of the data library: example data that the command line turns into files. */
export * from './spam-assassin';
