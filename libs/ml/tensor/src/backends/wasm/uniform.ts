import { elementCount, type Shape } from '../../dtype';

/** Uniform floats in [0, 1) with 24 random bits each, a pure function of key and index (a keyed integer finaliser, two rounds). */
export function fillUniform(shape: Shape, key: readonly [number, number]): Float32Array {
  const values = new Float32Array(elementCount(shape));
  for (let i = 0; i < values.length; i++) {
    const word = mix(mix(i ^ key[0]) ^ key[1]);
    values[i] = (word >>> 8) / 0x1000000;
  }
  return values;
}

/** Murmur3's 32-bit finaliser after a golden-ratio step, so that 0 does not map to 0. */
function mix(value: number): number {
  let word = Math.imul(value, 0x9e3779b1) + 0x7f4a7c15;
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}
