/** One training example. `labels[t]` is `inputIds[t]` where the token carries loss and `IGNORED_LABEL` elsewhere (not shifted). */
export interface TokenisedExample {
  /** [T] token ids. */
  readonly inputIds: Int32Array;
  /** [T] the same ids, or `IGNORED_LABEL` where no loss is taken. */
  readonly labels: Int32Array;
}

/** The label of tokens without loss, as in Hugging Face and PyTorch. */
export const IGNORED_LABEL = -100;

/**
 * A dataset ready for training, in file order. Arrays handed out are views of shared memory: borrowed, never written to.
 */
export interface TokenisedDataset {
  /** Number of examples. */
  readonly length: number;
  /** [length] tokens per example. */
  readonly lengths: Int32Array;
  /** Hash of the file's content, the tokenizer and the options: equal fingerprints mean equal tokens. */
  readonly fingerprint: string;
  /** @throws invalid index (a bug) when `index` is outside 0 .. length-1 */
  example(index: number): TokenisedExample;
}
