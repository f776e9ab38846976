import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeFile {
  readonly content: Buffer;
  /** Served as the hub serves large files: a SHA-256 in the listing and a redirect to another origin. */
  readonly large?: boolean;
}

export interface FakeHubFaults {
  /** Cut the next transfers of large files after this many bytes each. */
  cuts: number[];
  /** Bytes of the large file that the client has stored; a cut waits until they include what was sent, so that none is lost in flight. */
  received: () => number;
  /** Bytes of large files are altered on the way. */
  corrupt: boolean;
  /** Status for every API call, e.g. 401 or 503. */
  status: number | null;
  /** Accept connections but never answer. */
  silent: boolean;
}

/** The part of the hub's protocol that the hub client speaks, on a local port, with faults to order. For tests. */
export class FakeHub implements AsyncDisposable {
  readonly commit = 'c0ffee'.padEnd(40, '0');
  readonly faults: FakeHubFaults = { cuts: [], received: () => Infinity, corrupt: false, status: null, silent: false };
  /** `path range` of every file transfer. */
  readonly transfers: string[] = [];
  /** `Authorization` headers seen, by origin. */
  readonly authorisations: { hub: (string | undefined)[]; storage: (string | undefined)[] } = { hub: [], storage: [] };
  requests = 0;
  readonly #hub: Server;
  readonly #storage: Server;
  #url = '';

  private constructor(private readonly model: string, private readonly files: Readonly<Record<string, FakeFile>>) {
    this.#hub = createServer((request, response) => this.#answer(request, response));
    this.#storage = createServer((request, response) => this.#store(request, response));
  }

  static async start(model: string, files: Readonly<Record<string, FakeFile>>): Promise<FakeHub> {
    const hub = new FakeHub(model, files);
    for (const server of [hub.#hub, hub.#storage]) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    hub.#url = `http://127.0.0.1:${(hub.#hub.address() as AddressInfo).port}`;
    return hub;
  }

  get url(): string {
    return this.#url;
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.requests += 1;
    this.authorisations.hub.push(request.headers.authorization);
    if (this.faults.silent) return;
    const path = new URL(request.url ?? '/', this.url).pathname;
    const json = (status: number, body: unknown): void => void response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body));
    if (this.faults.status !== null) return json(this.faults.status, { error: 'ordered' });
    const revision = new RegExp(`^/api/models/${this.model}/revision/([^/]+)$`).exec(path)?.[1];
    if (revision !== undefined) return this.#knows(revision) ? json(200, { _id: '1', id: this.model, sha: this.commit, lastModified: '2025-01-01T00:00:00Z' }) : json(404, { error: 'Invalid rev id' });
    if (path === `/api/models/${this.model}/tree/${this.commit}`) return json(200, Object.entries(this.files).map(([name, file]) => listing(name, file)));
    const name = path.startsWith(`/${this.model}/resolve/${this.commit}/`) ? path.split('/').slice(5).join('/') : undefined;
    const file = name === undefined ? undefined : this.files[name];
    if (name === undefined || file === undefined) return json(404, { error: 'Repository not found' });
    const etag = digests(file).etag;
    if (file.large) {
      const { port } = this.#storage.address() as AddressInfo;
      // Another host name, so that the client sees another origin.
      response.writeHead(302, { location: `http://localhost:${port}/${name}`, 'x-linked-etag': `"${etag}"`, 'x-linked-size': String(file.content.length) }).end();
    } else this.#send(name, file, request, response);
  }

  #store(request: IncomingMessage, response: ServerResponse): void {
    this.authorisations.storage.push(request.headers.authorization);
    const name = (request.url ?? '/').slice(1);
    const file = this.files[name];
    if (file === undefined) response.writeHead(404).end();
    else this.#send(name, file, request, response);
  }

  #send(name: string, file: FakeFile, request: IncomingMessage, response: ServerResponse): void {
    const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const total = file.content.length;
    const start = match === null ? 0 : Number(match[1]);
    const end = match?.[2] ? Math.min(Number(match[2]) + 1, total) : total;
    const body = Buffer.from(file.content.subarray(start, end));
    const probe = request.headers.range === 'bytes=0-0';
    if (!probe) this.transfers.push(`${name} ${request.headers.range ?? 'whole'}`);
    if (this.faults.corrupt && file.large && body.length > 0) body[0] = (body[0] as number) ^ 255;
    const headers = { etag: `"${digests(file).etag}"`, 'content-length': String(body.length), 'content-type': 'application/octet-stream' };
    response.writeHead(match === null ? 200 : 206, match === null ? headers : { ...headers, 'content-range': `bytes ${start}-${end - 1}/${total}` });
    const cut = file.large && !probe ? this.faults.cuts.shift() : undefined;
    if (cut === undefined) response.end(body);
    else response.write(body.subarray(0, cut), () => this.#cutOnceReceived(response, start + cut, performance.now() + 5000));
  }

  #cutOnceReceived(response: ServerResponse, bytes: number, deadline: number): void {
    if (this.faults.received() >= bytes || performance.now() > deadline) response.destroy();
    else setImmediate(() => this.#cutOnceReceived(response, bytes, deadline));
  }

  #knows(revision: string): boolean {
    return ['HEAD', 'main', this.commit].includes(revision);
  }
}

function listing(path: string, file: FakeFile): object {
  const { git, sha256 } = digests(file);
  const entry = { type: 'file', path, oid: git, size: file.content.length };
  return file.large ? { ...entry, lfs: { oid: sha256, size: file.content.length, pointerSize: 130 } } : entry;
}

function digests({ content, large }: FakeFile): { git: string; sha256: string; etag: string } {
  const git = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { git, sha256, etag: large ? sha256 : git };
}
