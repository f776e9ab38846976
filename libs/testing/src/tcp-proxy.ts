import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { Transform } from 'node:stream';

/** Stands between a client and a server, so that a test can break what is between them. */
export class TcpProxy {
  private readonly sockets = new Set<Socket>();
  private delayMs = 0;
  private stalled = false;
  private wakes: (() => void)[] = [];

  private constructor(
    private readonly server: Server,
    private targets: readonly URL[],
    /** The server's URL, by way of the proxy. */
    readonly url: string,
  ) {}

  /** @param targetUrls where connections go: to the first that takes them, as a load balancer would */
  static async start(...targetUrls: readonly [string, ...string[]]): Promise<TcpProxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = new URL(targetUrls[0]);
    url.hostname = '127.0.0.1';
    url.port = `${(server.address() as AddressInfo).port}`;
    const proxy = new TcpProxy(
      server,
      targetUrls.map((target) => new URL(target)),
      url.toString(),
    );
    server.on('connection', (client) => void proxy.join(client));
    return proxy;
  }

  /** For new connections. */
  aim(...targetUrls: readonly string[]): void {
    this.targets = targetUrls.map((target) => new URL(target));
  }

  /** Breaks all connections; new ones are let through. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Each piece takes so long, either way, one after the other; 0: none. */
  delay(ms: number): void {
    this.delayMs = ms;
  }

  /** Nothing goes through any more, and nobody is told; until `resume`. */
  stall(): void {
    this.stalled = true;
  }

  resume(): void {
    this.stalled = false;
    for (const wake of this.wakes.splice(0)) wake();
  }

  /** Breaks all connections and refuses new ones. */
  async vanish(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.resume();
    this.cut();
    await closed;
  }

  private async join(client: Socket): Promise<void> {
    this.sockets.add(client);
    client.on('error', () => client.destroy());
    client.on('close', () => this.sockets.delete(client));
    const server = await this.dial();
    if (server === null || client.destroyed) {
      server?.destroy();
      client.destroy();
      return;
    }
    this.sockets.add(server);
    server.on('close', () => this.sockets.delete(server));
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.on('error', () => other.destroy());
      socket.on('close', () => other.destroy());
      socket.pipe(this.way()).pipe(other);
    }
  }

  /** The first target that takes a connection. */
  private async dial(): Promise<Socket | null> {
    for (const { hostname, port } of this.targets) {
      const socket = connect(Number(port), hostname);
      try {
        await once(socket, 'connect');
        return socket;
      } catch {
        socket.destroy();
      }
    }
    return null;
  }

  /** One direction of a connection. */
  private way(): Transform {
    return new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        const pass = (): void => {
          if (this.stalled) this.wakes.push(pass);
          else if (this.delayMs > 0) setTimeout(() => done(null, chunk), this.delayMs);
          else done(null, chunk);
        };
        pass();
      },
    });
  }
}
