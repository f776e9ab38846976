import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export type Answer = (response: ServerResponse, request: SeenRequest) => void | Promise<void>;

/** An HTTP server for one test. Answers are used up in order; the last one stays. */
export class LocalServer {
  readonly seen: SeenRequest[] = [];
  readonly #server: Server;

  private constructor(private readonly answers: Answer[]) {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(...answers: Answer[]): Promise<LocalServer> {
    const server = new LocalServer(answers);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    try {
      for await (const part of request) parts.push(part as Buffer);
    } catch {
      return; // The client gave up.
    }
    const seen = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body: Buffer.concat(parts) };
    this.seen.push(seen);
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    await answer?.(response, seen);
  }
}

export function json(value: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Answer {
  return (response) => void response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

export function apiError(status: number, fields: { message: string; code?: string | null; param?: string | null }, headers: Readonly<Record<string, string>> = {}): Answer {
  return json({ error: { type: 'invalid_request_error', code: null, param: null, ...fields } }, status, headers);
}

/** Cuts the connection without an answer. */
export const hangUp: Answer = (response) => void response.destroy();
