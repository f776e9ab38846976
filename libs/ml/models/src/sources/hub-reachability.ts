import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';

const REMEMBERED_MS = 5 * 60_000;
const recordSchema = z.object({ endpoint: z.string(), atMs: z.number() });

/**
 * Remembers, for all processes that share the cache, that the hub did not answer, so that a closed network costs one short wait and not one per
 * model and process. Only used to go straight to another source that has the model.
 */
export class HubReachability {
  readonly #path: string;
  readonly #now: () => number;

  constructor(cacheDirectory: string, now: () => number = Date.now) {
    this.#path = join(cacheDirectory, 'models', '.hub-unreachable.json');
    this.#now = now;
  }

  async isKnownUnreachable(endpoint: string): Promise<boolean> {
    try {
      const record = recordSchema.parse(JSON.parse(await readFile(this.#path, 'utf8')));
      const ageMs = this.#now() - record.atMs;
      return record.endpoint === endpoint && ageMs >= 0 && ageMs < REMEMBERED_MS;
    } catch {
      return false;
    }
  }

  async noteUnreachable(endpoint: string): Promise<void> {
    await mkdir(dirname(this.#path), { recursive: true });
    const partial = `${this.#path}.${randomUUID()}`;
    await writeFile(partial, JSON.stringify({ endpoint, atMs: this.#now() }));
    await rename(partial, this.#path);
  }

  async noteReachable(): Promise<void> {
    await rm(this.#path, { force: true });
  }
}
