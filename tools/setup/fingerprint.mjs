import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { root, stampDir } from './paths.mjs';

/** SHA-256 (hex) of the given texts, each closed by a separator so that no two lists collide by concatenation. */
export function hashOf(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex');
}

/** SHA-256 (hex) of a file of any size. */
export async function hashOfFile(path) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

/**
 * SHA-256 (hex) over names and contents of files below the given paths, in a fixed order; a path that does not exist counts as absent.
 * @param paths files or folders, absolute
 * @param accept called with the base name; false leaves the file out
 */
export function hashOfTree(paths, accept = () => true) {
  const hash = createHash('sha256');
  for (const path of paths) {
    for (const file of filesBelow(path, accept)) {
      hash.update(relative(root, file)).update('\0').update(readFileSync(file)).update('\0');
    }
  }
  return hash.digest('hex');
}

function* filesBelow(path, accept) {
  let entries;
  try {
    entries = readdirSync(path, { withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOTDIR') yield path;
    else if (error.code !== 'ENOENT') throw error;
    return;
  }
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name === 'node_modules') continue;
    const child = join(path, entry.name);
    if (entry.isDirectory()) yield* filesBelow(child, accept);
    else if (accept(entry.name)) yield child;
  }
}

/** The fingerprint a step left when it last finished, or undefined. */
export function readStamp(step) {
  const file = join(stampDir, step);
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

/** Written in one move: a reader never sees half a stamp. */
export function writeStamp(step, fingerprint) {
  writeAtomically(join(stampDir, step), fingerprint);
}

export function clearStamp(step) {
  rmSync(join(stampDir, step), { force: true });
}

export function writeAtomically(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, content);
  renameSync(temporary, file);
}
