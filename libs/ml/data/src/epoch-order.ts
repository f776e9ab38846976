/**
 * The order in which an epoch visits the examples: a Fisher-Yates shuffle that depends on seed and epoch alone, so that a resumed run goes on
 * exactly where it stopped.
 * @returns [length] a permutation of 0 .. length-1
 */
export function epochOrder(length: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length }, (_, index) => index);
  const random = mulberry32(mix(seed, epoch));
  for (let last = length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const held = order[last] as number;
    order[last] = order[other] as number;
    order[other] = held;
  }
  return order;
}

/** Spreads two numbers over 32 bits; neighbouring epochs must not give related streams. */
function mix(seed: number, epoch: number): number {
  let hash = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(epoch + 1, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** Tommy Ettinger's mulberry32: uniform in [0, 1), period 2^32; enough for shuffles. */
function mulberry32(state: number): () => number {
  let current = state;
  return () => {
    current = (current + 0x6d2b79f5) | 0;
    let value = Math.imul(current ^ (current >>> 15), 1 | current);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };
}
