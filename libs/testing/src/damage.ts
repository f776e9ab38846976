/** Files as a bad disk, a broken download or an enemy would leave them. */
import { randomInt } from 'node:crypto';

/** @returns a number in [0, below) */
export type RandomInt = (below: number) => number;

/** The same numbers for the same seed. @see mulberry32 */
export function seededRandom(seed: number): RandomInt {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** A fixed seed, and one nobody has tried; name it in what fails. */
export function damageSeeds(): readonly number[] {
  return [1, randomInt(2 ** 31)];
}

const LENGTHS = [0n, 1n, 0xffn, 0xffff_ffffn, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn, 1n << 40n, 1n << 53n];

/** A damaged copy: cut, bits turned, lengths grown, parts doubled, swapped or wiped; more often near the beginning, where files say what they hold. */
export function damagedBytes(bytes: Uint8Array, random: RandomInt): Uint8Array {
  const result = Uint8Array.from(bytes);
  const size = result.length;
  const at = (): number => random(random(3) === 0 ? size : Math.min(size, 512));
  const view = new DataView(result.buffer);
  switch (random(6)) {
    case 0:
      return result.slice(0, at());
    case 1:
      for (let count = 1 + random(8); count > 0; count--) {
        const place = at();
        result[place] = (result[place] as number) ^ (1 << random(8));
      }
      return result;
    case 2:
      view.setBigUint64(Math.max(0, Math.min(size - 8, random(2) === 0 ? at() : at() & ~7)), LENGTHS[random(LENGTHS.length)] as bigint, true);
      return result;
    case 3:
      return Uint8Array.from([...result.slice(0, size - random(16)), ...result.slice(at(), at() + random(64))]);
    case 4:
      result.copyWithin(at(), at(), at() + random(64));
      return result;
    default: {
      const begin = at();
      return result.fill(random(2) === 0 ? 0 : 255, begin, begin + random(64));
    }
  }
}

const VALUES: readonly unknown[] = [null, true, -1, 0, 0.5, 1e9, 2 ** 53, 1e308, '', '(a+)+$', '../../etc/passwd', 'x'.repeat(5000), [], {}, [[]], [1e9], { a: { b: [] } }, new Array(2000).fill('q_proj')];

/** A copy of a JSON value in which one or two values are others, or gone, or there under another name. */
export function damagedJson(value: unknown, random: RandomInt): unknown {
  const copy: unknown = JSON.parse(JSON.stringify(value));
  for (let count = 1 + random(2); count > 0; count--) damageOne(copy, random);
  return copy;
}

function damageOne(root: unknown, random: RandomInt): void {
  let holder = root as Record<string, unknown>;
  for (;;) {
    const keys = Object.keys(holder);
    const key = keys[random(Math.max(1, keys.length))];
    if (key === undefined) return;
    const inner = holder[key];
    if (typeof inner === 'object' && inner !== null && Object.keys(inner).length > 0 && random(2) === 0) {
      holder = inner as Record<string, unknown>;
      continue;
    }
    const replacement: unknown = structuredClone(VALUES[random(VALUES.length)]);
    if (random(5) === 0) delete holder[key];
    else holder[random(8) === 0 ? `${key}_` : key] = replacement;
    return;
  }
}
