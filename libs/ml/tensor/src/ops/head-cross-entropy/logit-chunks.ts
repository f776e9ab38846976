/** Of the logits that exist at once, f32. Below some 400 rows the product with the head is half as fast, beyond them nothing is gained. */
const CHUNK_BYTES = 2 ** 27;

/** Rows whose logits are held at once: the fewest chunks, and these alike. */
export function logitRowsAtOnce(rows: number, vocabulary: number): number {
  const most = Math.max(1, Math.floor(CHUNK_BYTES / (4 * vocabulary)));
  return Math.ceil(rows / Math.ceil(rows / most));
}
