import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A TCP proxy whose connections a test can cut, as a network or a killed server would. */
export class FlakyProxy {
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private refusing = false;
  private cutAfterBytes: number | null = null;

  constructor(private targetPort: number) {
    this.server = createServer((client) => this.accept(client));
  }

  listen(): Promise<number> {
    return new Promise((resolve) => this.server.listen(0, '127.0.0.1', () => resolve((this.server.address() as AddressInfo).port)));
  }

  /** New connections go there. */
  retarget(port: number): void {
    this.targetPort = port;
  }

  /** Drops every connection; nobody gets a last word. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Cuts and lets nobody in until `allow`. */
  refuse(): void {
    this.refusing = true;
    this.cut();
  }

  allow(): void {
    this.refusing = false;
  }

  /** Cuts everything once after so many more bytes towards the server. */
  cutAfter(bytes: number): void {
    this.cutAfterBytes = bytes;
  }

  get hasCut(): boolean {
    return this.cutAfterBytes === null;
  }

  close(): Promise<void> {
    this.cut();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }

  private accept(client: Socket): void {
    if (this.refusing) return void client.destroy();
    const target = connect(this.targetPort, '127.0.0.1');
    for (const [from, to] of [
      [client, target],
      [target, client],
    ] as const) {
      this.sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.sockets.delete(from);
        to.destroy();
      });
    }
    target.pipe(client);
    client.on('data', (data: Buffer) => {
      target.write(data);
      if (this.cutAfterBytes === null) return;
      this.cutAfterBytes -= data.length;
      if (this.cutAfterBytes > 0) return;
      this.cutAfterBytes = null;
      this.cut();
    });
  }
}
