import { TunefleetError, sleep } from '@tunefleet/foundation';
import type { z } from 'zod';
import { errorFromAnswer, errorFromSilence, type TunefleetApiError } from './api-error';
import { encodeForm, type FormBody, type FormUpload } from './multipart';
import { mayRetry, retryDelayMs } from './retry';

export interface ClientOptions {
  /** Address of the server, e.g. `http://127.0.0.1:8080`, without `/v1`. */
  readonly baseUrl: string;
  readonly apiKey: string;
  /** Tries after the first. Default 2. */
  readonly maxRetries?: number;
  /** Longest wait for an answer to begin, in milliseconds; uploads are not bound by it. Default 60 000. */
  readonly timeoutMs?: number;
  /** Default: the global `fetch`. */
  readonly fetch?: typeof fetch;
}

/** What every call takes besides its own arguments. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export type QueryValue = string | number | undefined;

export interface ApiRequest extends CallOptions {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** From the root, each part encoded: see `path`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, QueryValue>> | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  readonly form?: FormUpload;
  /** Doing it twice is the same as doing it once. Default: all but POST. */
  readonly repeatable?: boolean;
}

const RETRIES_DEFAULT = 2;
const TIMEOUT_DEFAULT_MS = 60_000;

/** Sends requests, tries again where that is right, and turns every failure into a `TunefleetApiError`. */
export class Transport {
  readonly #options: Required<Omit<ClientOptions, 'fetch'>>;
  readonly #fetch: typeof fetch;

  constructor(options: ClientOptions) {
    if (!/^https?:\/\//.test(options.baseUrl)) throw new TunefleetError('invalid_input', `baseUrl is "${options.baseUrl}"; it must be an http:// or https:// address`);
    this.#options = { maxRetries: RETRIES_DEFAULT, timeoutMs: TIMEOUT_DEFAULT_MS, ...options, baseUrl: options.baseUrl.replace(/\/+$/, '') };
    this.#fetch = options.fetch ?? fetch;
  }

  /** The parsed answer. @throws TunefleetApiError; `cancelled` when the caller's signal aborts; `invariant` for an answer of another shape */
  async json<T extends z.ZodType>(schema: T, request: ApiRequest): Promise<z.infer<T>> {
    const text = await this.#repeat(request, (response) => response.text());
    return parseAnswer(schema, text, request);
  }

  /** The answer's bytes as they come; the caller reads them to the end or cancels. Throws as `json` until the first byte. */
  async bytes(request: ApiRequest): Promise<ReadableStream<Uint8Array>> {
    const response = await this.open(request);
    return response.body ?? new Blob([]).stream();
  }

  /** The answer's head, with its body unread. */
  open(request: ApiRequest): Promise<Response> {
    return this.#repeat(request, (response) => Promise.resolve(response));
  }

  async #repeat<T>(request: ApiRequest, read: (response: Response) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const result = await this.#tryOnce(request, read);
      if (result.ok) return result.value;
      const { error, headers } = result;
      const repeatable = request.repeatable ?? request.method !== 'POST';
      if (attempt > this.#options.maxRetries || !mayRetry({ status: error.status, headers }, repeatable)) throw error;
      await sleep(retryDelayMs(headers, attempt, Date.now()), request.signal);
      throwIfCancelled(request);
    }
  }

  async #tryOnce<T>(request: ApiRequest, read: (response: Response) => Promise<T>): Promise<Tried<T>> {
    throwIfCancelled(request);
    const deadline = new AbortController();
    const timeoutMs = this.#options.timeoutMs;
    const timer = request.form === undefined ? setTimeout(() => deadline.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs) : undefined;
    const form = request.form === undefined ? null : encodeForm(request.form);
    try {
      const response = await this.#fetch(this.#url(request), {
        method: request.method ?? 'GET',
        headers: this.#headers(request, form),
        ...bodyOf(request, form),
        signal: request.signal === undefined ? deadline.signal : AbortSignal.any([request.signal, deadline.signal]),
      });
      if (response.ok) return { ok: true, value: await read(response) };
      return { ok: false, error: errorFromAnswer(response.status, response.headers, await response.text()), headers: response.headers };
    } catch (error) {
      throwIfCancelled(request, error);
      const unread = form?.readError();
      if (unread !== undefined) throw unread;
      return { ok: false, error: errorFromSilence(error), headers: new Headers() };
    } finally {
      clearTimeout(timer);
    }
  }

  #url({ path, query }: ApiRequest): string {
    const pairs = new URLSearchParams();
    for (const [name, value] of Object.entries(query ?? {})) if (value !== undefined) pairs.set(name, String(value));
    return `${this.#options.baseUrl}${path}${pairs.size === 0 ? '' : `?${pairs.toString()}`}`;
  }

  #headers(request: ApiRequest, form: FormBody | null): Record<string, string> {
    return {
      authorization: `Bearer ${this.#options.apiKey}`,
      accept: 'application/json',
      ...(request.json === undefined ? {} : { 'content-type': 'application/json' }),
      ...form?.headers,
      ...request.headers,
    };
  }
}

type Tried<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: TunefleetApiError; readonly headers: Headers };

/** Joins path parts, each encoded; model names hold slashes and colons. */
export function path(root: '/v1' | '/api/v1', ...parts: readonly string[]): string {
  for (const part of parts) {
    // An empty id would turn "one of them" into "all of them"; dots are eaten by URL parsers.
    if (part === '' || part === '.' || part === '..') throw new TunefleetError('invalid_input', `"${part}" is not an id`);
  }
  return [root, ...parts.map(encodeURIComponent)].join('/');
}

export function parseAnswer<T extends z.ZodType>(schema: T, text: string, { method = 'GET', path: where }: Pick<ApiRequest, 'method' | 'path'>): z.infer<T> {
  let value: unknown;
  try {
    value = JSON.parse(text) as unknown;
  } catch (cause) {
    throw new TunefleetError('invariant', `the answer to ${method} ${where} is not JSON: is this a Tunefleet server?`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new TunefleetError('invariant', `the answer to ${method} ${where} has an unexpected form (${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}): client and server may be of different versions`, { cause: parsed.error });
}

/**
 * Fetch keeps a copy of a streamed body for the case of a redirect, all of it, unless redirects are errors and no window could ask for a
 * password (Fetch standard, "HTTP-network-or-cache fetch", step 3).
 */
function bodyOf({ json }: ApiRequest, form: FormBody | null): Pick<RequestInit, 'body' | 'duplex' | 'redirect' | 'window'> {
  if (form !== null) return { body: form.body, duplex: 'half', redirect: 'error', window: null };
  return json === undefined ? {} : { body: JSON.stringify(json) };
}

function throwIfCancelled({ signal, method = 'GET', path: where }: ApiRequest, cause?: unknown): void {
  if (signal?.aborted) throw new TunefleetError('cancelled', `${method} ${where} was stopped`, { cause: cause ?? signal.reason });
}
