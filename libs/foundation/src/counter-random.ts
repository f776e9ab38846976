/**
 * Random numbers as a pure function of (seed, stream, counter): Philox 4x32-10. Nothing has to be stored to resume, and no draw depends on how many
 * were made before it, so rows decoded together or alone get the same numbers.
 * @see Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const KEY_STEP_0 = 0x9e3779b9;
const KEY_STEP_1 = 0xbb67ae85;
const ROUNDS = 10;

export type PhiloxCounter = readonly [number, number, number, number];

/** One block: 128 bits of counter and 64 of key to 128 random bits, as four unsigned 32-bit words. */
export function philox4x32(counter: PhiloxCounter, key: readonly [number, number]): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const next0 = (highWord(MULTIPLIER_1, c2) ^ c1 ^ k0) >>> 0;
    const next2 = (highWord(MULTIPLIER_0, c0) ^ c3 ^ k1) >>> 0;
    c1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c3 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    c0 = next0;
    c2 = next2;
    k0 = (k0 + KEY_STEP_0) >>> 0;
    k1 = (k1 + KEY_STEP_1) >>> 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/** Uniform in [0, 1) with 53 random bits. */
export function uniformAt(seed: number, stream: number, counter: number): number {
  const [a, b] = philox4x32([counter >>> 0, Math.floor(counter / 2 ** 32) >>> 0, stream >>> 0, 0], [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]);
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
}

/** Fills `out` with numbers uniform in [-bound, bound); a function of seed, stream and index. */
export function fillUniform(out: Float32Array, bound: number, seed: number, stream: number): void {
  fillFromBlocks(out, seed, stream, (words, into) => {
    for (let i = 0; i < 4; i++) into[i] = ((words[i] ?? 0) / 2 ** 31 - 1) * bound;
  });
}

/** Fills `out` with normal numbers of mean 0 (Box-Muller); a function of seed, stream and index. */
export function fillNormal(out: Float32Array, deviation: number, seed: number, stream: number): void {
  fillFromBlocks(out, seed, stream, (words, into) => {
    for (let i = 0; i < 4; i += 2) {
      // In (0, 1], so that the logarithm is finite.
      const radius = deviation * Math.sqrt(-2 * Math.log(((words[i] ?? 0) + 1) / 2 ** 32));
      const angle = (2 * Math.PI * (words[i + 1] ?? 0)) / 2 ** 32;
      into[i] = radius * Math.cos(angle);
      into[i + 1] = radius * Math.sin(angle);
    }
  });
}

/** Four numbers from every block of random words. */
function fillFromBlocks(out: Float32Array, seed: number, stream: number, convert: (words: readonly number[], into: Float32Array) => void): void {
  const key: [number, number] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  const four = new Float32Array(4);
  for (let at = 0; at < out.length; at += 4) {
    convert(philox4x32([at / 4, 0, stream >>> 0, 1], key), four);
    for (let i = 0; i < 4 && at + i < out.length; i++) out[at + i] = four[i] ?? 0;
  }
}

/** Upper half of the 64-bit product of two unsigned 32-bit numbers. */
function highWord(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}
