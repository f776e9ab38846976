import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export interface DecodeRequest {
  readonly batch: number;
  /** Tokens of each prompt, and new ones of each text. */
  readonly prompt: number;
  readonly tokens: number;
  readonly adapted: boolean;
}

/** The reference in a process of its own, which keeps its models between requests. */
export class DecodePeer {
  private constructor(
    private readonly child: ReturnType<typeof start>,
    private readonly lines: AsyncIterator<string>,
  ) {}

  static async start(python: string, args: readonly string[]): Promise<DecodePeer> {
    const child = start(python, args);
    const peer = new DecodePeer(child, createInterface({ input: child.stdout })[Symbol.asyncIterator]());
    await peer.answer();
    return peer;
  }

  async seconds(request: DecodeRequest): Promise<number> {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    const { seconds } = (await this.answer()) as { readonly seconds: number };
    return seconds;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    this.child.stdin.end();
    await once(this.child, 'exit');
  }

  private async answer(): Promise<unknown> {
    const { value, done } = await this.lines.next();
    if (done) throw new Error('the reference ended; see its message above');
    return JSON.parse(value);
  }
}

function start(python: string, args: readonly string[]) {
  return spawn(python, [...args], { stdio: ['pipe', 'pipe', 'inherit'] });
}
