import { randomBytes } from 'node:crypto';

/** Crockford's base 32: no i, l, o, u. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** Prefixes as OpenAI clients know them; ours for what OpenAI has no word for. */
export const ID_PREFIX = {
  team: 'team-',
  file: 'file-',
  datasetVersion: 'dsv-',
  fineTuningJob: 'ftjob-',
  evalJob: 'evaljob-',
  attempt: 'att-',
  checkpoint: 'ftckpt_',
  event: 'ftevent-',
  adapter: 'adp-',
  worker: 'wrk-',
  joinToken: 'jtok-',
  outbox: 'out-',
} as const;

export type IdKind = keyof typeof ID_PREFIX;

let lastMs = 0;
let lastTail = 0n;

/**
 * A new id: prefix + 26 characters, 48 bits of time then 80 random bits (the ULID layout, github.com/ulid/spec).
 * Ids made by one process sort in the order they were made, also within a millisecond.
 */
export function newId(kind: IdKind, nowMs: number = Date.now()): string {
  if (nowMs > lastMs) {
    lastMs = nowMs;
    // The top bit stays clear so that counting up within the millisecond cannot overflow.
    lastTail = BigInt(`0x${randomBytes(10).toString('hex')}`) >> 1n;
  } else {
    lastTail += 1n;
  }
  return ID_PREFIX[kind] + encode(BigInt(lastMs), 10) + encode(lastTail, 16);
}

function encode(value: bigint, length: number): string {
  let text = '';
  for (let i = 0; i < length; i++) {
    text = ALPHABET.charAt(Number(value & 31n)) + text;
    value >>= 5n;
  }
  return text;
}
