import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';

const SHA256 = /^[0-9a-f]{64}$/;

export function isSha256(text: string): boolean {
  return SHA256.test(text);
}

/** Only a hash can become a path, so no name from outside reaches the file system. @throws invalid_input */
export function requireSha256(sha256: string): void {
  if (!isSha256(sha256)) {
    const shown = sha256.length > 80 ? `${sha256.slice(0, 80)}...` : sha256;
    throw new TunefleetError('invalid_input', `not a SHA-256: ${JSON.stringify(shown)}; expected 64 lower-case hexadecimal digits`, { param: 'sha256' });
  }
}

/** `<root>/ab/cd/abcd...`: two levels keep folders small up to tens of millions of blobs. @throws invalid_input */
export function blobPath(root: string, sha256: string): string {
  requireSha256(sha256);
  return join(root, sha256.slice(0, 2), sha256.slice(2, 4), sha256);
}
