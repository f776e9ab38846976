import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { sha256Hex } from '@tunefleet/foundation';
import { withFolderLock } from './folder-lock';
import type { ModelSourceKind } from './types';

const MANIFEST = 'tunefleet-model.json';

const manifestSchema = z.object({
  id: z.string(),
  revision: z.string(),
  source: z.enum(['hub', 'local', 'mirror']),
});

export interface CachedModel {
  readonly folder: string;
  readonly source: ModelSourceKind;
}

/** `TUNEFLEET_CACHE_DIR`, else `$XDG_CACHE_HOME/tunefleet`, else `~/.cache/tunefleet`. */
export function cacheDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  return environment['TUNEFLEET_CACHE_DIR'] || join(environment['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'tunefleet');
}

/**
 * Model folders on disk, one per id and pinned revision: `<root>/models/<owner--name>/<revision>/`. A folder appears by one rename when it is complete,
 * so what exists is whole. Moving names (branches) are remembered in `refs/` for use without network.
 */
export class ModelCache {
  readonly root: string;

  constructor(directory: string) {
    this.root = join(directory, 'models');
  }

  async find(id: string, revision: string): Promise<CachedModel | null> {
    const folder = this.#folder(id, revision);
    const path = join(folder, MANIFEST);
    if (!existsSync(path)) return null;
    const manifest = manifestSchema.safeParse(parseJson(await readFile(path, 'utf8')));
    return manifest.success && manifest.data.id === id && manifest.data.revision === revision ? { folder, source: manifest.data.source } : null;
  }

  /** Every complete model, in the order of the folder names. */
  async list(): Promise<{ readonly id: string; readonly revision: string }[]> {
    const found: { readonly id: string; readonly revision: string }[] = [];
    for (const model of await subfolders(this.root)) {
      for (const revision of await subfolders(join(this.root, model))) {
        const text = await readFile(join(this.root, model, revision, MANIFEST), 'utf8').catch(() => '');
        const manifest = manifestSchema.safeParse(parseJson(text));
        // A staging folder gets its manifest a moment before it gets its name.
        if (manifest.success && manifest.data.revision === revision) found.push({ id: manifest.data.id, revision });
      }
    }
    return found;
  }

  /** @returns the pinned revision a branch or tag last stood for on this machine */
  async readRef(id: string, ref: string): Promise<string | null> {
    return (await readFile(this.#refPath(id, ref), 'utf8').catch(() => '')).trim() || null;
  }

  async writeRef(id: string, ref: string, revision: string): Promise<void> {
    const path = this.#refPath(id, ref);
    await mkdir(dirname(path), { recursive: true });
    const partial = `${path}.${randomUUID()}.partial`;
    await writeFile(partial, revision);
    await rename(partial, path);
  }

  /**
   * Makes the folder unless it exists. One process does the work, others wait for it. `fill` gets a staging folder that keeps what earlier,
   * interrupted tries left in it.
   */
  async ensure(id: string, revision: string, source: ModelSourceKind, fill: (staging: string) => Promise<void>, signal?: AbortSignal): Promise<CachedModel> {
    const folder = this.#folder(id, revision);
    await mkdir(dirname(folder), { recursive: true });
    return withFolderLock(`${folder}.lock`, { signal }, async () => {
      const found = await this.find(id, revision);
      if (found !== null) return found;
      const staging = `${folder}.staging`;
      await mkdir(staging, { recursive: true });
      await fill(staging);
      await writeFile(join(staging, MANIFEST), `${JSON.stringify({ id, revision, source }, null, 2)}\n`);
      await rm(folder, { recursive: true, force: true });
      await rename(staging, folder);
      return { folder, source };
    });
  }

  #modelDirectory(id: string): string {
    return join(this.root, id.replaceAll('/', '--'));
  }

  #folder(id: string, revision: string): string {
    return join(this.#modelDirectory(id), revision);
  }

  #refPath(id: string, ref: string): string {
    return join(this.#modelDirectory(id), 'refs', /^[A-Za-z0-9._-]{1,80}$/.test(ref) ? ref : sha256Hex(ref).slice(0, 32));
  }
}

async function subfolders(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name).sort();
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
