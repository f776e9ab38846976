import { fileDownloadInfo, listFiles, modelInfo, type ListFileEntry } from '@huggingface/hub';
import { TunefleetError, errorMessage } from '@tunefleet/foundation';

export const DEFAULT_ENDPOINT = 'https://huggingface.co';

export interface HubOptions {
  /** `HF_ENDPOINT`: the hub's address, or that of a mirror speaking its protocol. */
  readonly endpoint: string;
  /** `HF_TOKEN`; sent to the endpoint only, never logged. */
  readonly token?: string | undefined;
  /** Longest wait for an API answer before the hub counts as unreachable, milliseconds. */
  readonly contactTimeoutMs: number;
}

export interface HubFile {
  readonly path: string;
  readonly bytes: number;
  /** How its content is proved: SHA-256 for large files, git's blob SHA-1 for small ones. */
  readonly digest: { readonly algorithm: 'sha256' | 'git-sha1'; readonly hex: string };
}

const FILES_MAX = 10_000;

/** Files worth fetching: configuration, tokenizer, safetensors weights. Never pickles, never code. */
const WANTED = /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|model\.safetensors\.index)\.json$|^chat_template\.jinja$|^model(-\d{5}-of-\d{5})?\.safetensors$|^LICENSE(\.txt|\.md)?$/;

/** The few hub calls we need, with our errors: `unavailable` when it cannot be reached, `not_found`, `permission_denied`. */
export class HubClient {
  readonly #options: HubOptions;

  constructor(options: HubOptions) {
    this.#options = { ...options, endpoint: options.endpoint.replace(/\/+$/, '') };
  }

  get endpoint(): string {
    return this.#options.endpoint;
  }

  /** @returns the commit hash a branch, tag or hash stands for */
  async commitOf(id: string, revision: string, signal?: AbortSignal): Promise<string> {
    const info = await this.#call(id, revision, () => modelInfo({ name: id, revision, additionalFields: ['sha'], ...this.#transport(signal) }));
    if (!/^[0-9a-f]{40}$/.test(info.sha ?? '')) throw unreachable(this.endpoint, `the answer for ${id} has no commit hash`);
    return info.sha;
  }

  /** Wanted files of a commit, smallest first. @throws TunefleetError `incompatible_artifact` when there are no safetensors weights */
  async filesOf(id: string, commit: string, signal?: AbortSignal): Promise<HubFile[]> {
    const files = await this.#call(id, commit, async () => {
      const found: HubFile[] = [];
      let seen = 0;
      for await (const entry of listFiles({ repo: { type: 'model', name: id }, revision: commit, recursive: false, ...this.#transport(signal) })) {
        if (++seen > FILES_MAX) throw new TunefleetError('incompatible_artifact', `${id} holds more than ${FILES_MAX} files`);
        if (entry.type === 'file' && WANTED.test(entry.path)) found.push(toHubFile(entry));
      }
      return found;
    });
    if (!files.some(({ path }) => path.endsWith('.safetensors'))) {
      throw new TunefleetError('incompatible_artifact', `${id} has no safetensors weights; choose a repository that has model.safetensors`, { reason: 'no_weights' });
    }
    return files.sort((a, b) => a.bytes - b.bytes || (a.path < b.path ? -1 : 1));
  }

  /**
   * Opens a file from byte `start` on.
   * @returns the response and where its body really starts: 0 when the server ignored the range
   */
  async open(id: string, commit: string, path: string, start: number, signal: AbortSignal): Promise<{ body: ReadableStream<Uint8Array>; start: number }> {
    return this.#call(id, commit, async () => {
      const info = await fileDownloadInfo({ repo: { type: 'model', name: id }, path, revision: commit, ...this.#transport(signal) });
      if (info === null) throw notFound(`${path} of ${id} at ${commit.slice(0, 12)} does not exist`);
      const response = await this.#fetch(signal, false)(info.url, { headers: { 'Accept-Encoding': 'identity', ...(start > 0 ? { Range: `bytes=${start}-` } : {}) } });
      if (!response.ok || response.body === null) throw Object.assign(new Error(`status ${response.status}`), { statusCode: response.status });
      const from = response.status === 206 ? Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? NaN) : 0;
      if (from !== 0 && from !== start) throw unreachable(this.endpoint, `asked for bytes from ${start}, got them from ${from}`);
      return { body: response.body as ReadableStream<Uint8Array>, start: from };
    });
  }

  /** Fetches a small file whole. */
  async text(id: string, commit: string, file: HubFile, bytesMax: number, signal?: AbortSignal): Promise<string> {
    if (file.bytes > bytesMax) throw new TunefleetError('incompatible_artifact', `${file.path} of ${id} has ${file.bytes} bytes; the limit is ${bytesMax}`);
    const { body } = await this.open(id, commit, file.path, 0, anySignal(signal, AbortSignal.timeout(this.#options.contactTimeoutMs * 4)));
    return new Response(body).text();
  }

  #transport(signal?: AbortSignal): { hubUrl: string; fetch: typeof fetch } {
    return { hubUrl: this.endpoint, fetch: this.#fetch(signal, true) };
  }

  /** The token goes to the endpoint's origin only; `fetch` itself drops it when a redirect leaves that origin. */
  #fetch(signal: AbortSignal | undefined, bounded: boolean): typeof fetch {
    const { endpoint, token, contactTimeoutMs } = this.#options;
    return async (input, init) => {
      const url = new URL(input instanceof Request ? input.url : input);
      const headers = new Headers(init?.headers);
      if (token !== undefined && url.origin === new URL(endpoint).origin) headers.set('Authorization', `Bearer ${token}`);
      const stop = bounded ? anySignal(signal, AbortSignal.timeout(contactTimeoutMs)) : signal;
      const response = await fetch(url, { ...init, headers, ...(stop === undefined ? {} : { signal: stop }) });
      const page = response.headers.get('content-type')?.startsWith('text/html') ?? false;
      // A closed network's proxy answers with a page of its own; the hub's API never does.
      if (response.status >= 500 || (page && bounded && !response.ok)) throw unreachable(endpoint, `it answered with status ${response.status}`);
      return response;
    };
  }

  async #call<T>(id: string, revision: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#translate(error, id, revision);
    }
  }

  #translate(error: unknown, id: string, revision: string): unknown {
    if (error instanceof TunefleetError) return error;
    const status = (error as { statusCode?: unknown }).statusCode;
    switch (status) {
      case 401:
      case 403:
        return new TunefleetError('permission_denied', `${this.endpoint} does not let us read ${id} (status ${status}): it does not exist, is private, or needs its terms accepted; check the name, and set HF_TOKEN to a token that may read it`, { reason: 'model_not_available', param: 'model', cause: error });
      case 404:
        return notFound(`${id} at revision ${revision} does not exist on ${this.endpoint}; check the name and the revision`, error);
      case 429:
        return new TunefleetError('unavailable', `${this.endpoint} limits our requests (status 429); try again later, or set HF_TOKEN`, { reason: 'hub_unreachable', cause: error });
      default:
        return unreachable(this.endpoint, causeOf(error), error);
    }
  }
}

function toHubFile(entry: ListFileEntry): HubFile {
  const digest = entry.lfs === undefined ? { algorithm: 'git-sha1' as const, hex: entry.oid ?? '' } : { algorithm: 'sha256' as const, hex: entry.lfs.oid };
  return { path: entry.path, bytes: entry.lfs?.size ?? entry.size, digest };
}

/** The system's code (`ENOTFOUND`) says more than "fetch failed". */
function causeOf(error: unknown): string {
  const cause = error instanceof Error ? (error.cause as { code?: unknown } | undefined) : undefined;
  return typeof cause?.code === 'string' ? cause.code : errorMessage(error);
}

function unreachable(endpoint: string, why: string, cause?: unknown): TunefleetError {
  return new TunefleetError('unavailable', `the model hub ${endpoint} cannot be reached (${why}); check the network, or set HF_ENDPOINT`, { reason: 'hub_unreachable', cause });
}

function notFound(message: string, cause?: unknown): TunefleetError {
  return new TunefleetError('not_found', message, { reason: 'model_not_found', param: 'model', cause });
}

export function anySignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}
