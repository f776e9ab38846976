import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/**
 * Secrets of the fleet are shown as "<id>.<secret>": the id finds the record, and what is compared, in constant time, is the hash of the
 * secret. 32 random bytes need no slow hash: there is nothing to guess.
 */
export interface ShownSecret {
  readonly id: string;
  readonly secret: string;
}

const SHOWN = /^([A-Za-z0-9_-]{1,80})\.([A-Za-z0-9_-]{43})$/;
const SECRET_BYTES = 32;

export function newSecret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url');
}

/** SHA-256, lower-case hexadecimal: what is stored. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** Null: not of that form. */
export function parseShown(text: string): ShownSecret | null {
  const [, id, secret] = SHOWN.exec(text) ?? [];
  return id === undefined || secret === undefined ? null : { id, secret };
}

/** Against a hash that may not be there, in the same time either way. */
export function isSecret(secret: string, hash: string | null): boolean {
  const wanted = hash !== null && hash.length === NO_HASH.length ? hash : NO_HASH;
  return timingSafeEqual(Buffer.from(hashSecret(secret), 'hex'), Buffer.from(wanted, 'hex')) && wanted !== NO_HASH;
}

/** Both are hashed first, so that neither length nor content shows in the time taken. */
export function isSameText(given: string, wanted: string): boolean {
  return timingSafeEqual(Buffer.from(hashSecret(given), 'hex'), Buffer.from(hashSecret(wanted), 'hex'));
}

/** Of no text that is known. */
const NO_HASH = '0'.repeat(64);
