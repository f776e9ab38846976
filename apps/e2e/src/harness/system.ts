import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { descendants, isAlive, until, writeTinyModel, type ProcessInfo } from '@tunefleet/testing';
import OpenAI from 'openai';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');
const cli = join(root, 'dist', 'cli.mjs');
const START_MS = 180_000;
const STOP_MS = 60_000;

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The whole service as users run it: `tunefleet up` of the built command line, with an embedded PostgreSQL, a control plane and real
 * workers with real engines, on a data folder of its own. The model is a tiny random Llama.
 */
export class System {
  private constructor(
    readonly dir: string,
    readonly url: string,
    readonly apiKey: string,
    /** What jobs name as their model. */
    readonly model: string,
    private readonly up: ChildProcess,
  ) {}

  static async start(options: { readonly workers?: number } = {}): Promise<System> {
    for (const name of ['cli', 'control-plane', 'worker', 'engine']) {
      if (!existsSync(join(root, 'dist', `${name}.mjs`))) throw new Error(`dist/${name}.mjs is missing: run "npm run setup"`);
    }
    const dir = await mkdtemp(join(tmpdir(), 'tunefleet-e2e-'));
    const model = await writeTinyModel(join(dir, 'models', 'tiny'));
    const dataDir = join(dir, 'data');
    const up = spawn(process.execPath, ['--enable-source-maps', cli, 'up', '--port', '0', '--workers', String(options.workers ?? 1), '--data-dir', dataDir], {
      cwd: dir,
      env: environment(dir),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    up.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
    try {
      await until('the service to be up', () => existsSync(join(dataDir, 'server.json')) || up.exitCode !== null, { timeoutMs: START_MS, detail: () => said });
      if (up.exitCode !== null) throw new Error(`"tunefleet up" ended with code ${up.exitCode}: ${said}\n${await logTails(dataDir)}`);
      const { url } = JSON.parse(await readFile(join(dataDir, 'server.json'), 'utf8')) as { url: string };
      const { apiKey } = JSON.parse(await readFile(join(dataDir, 'secrets.json'), 'utf8')) as { apiKey: string };
      return new System(dir, url, apiKey, model, up);
    } catch (error) {
      await stopProcess(up);
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  get dataDir(): string {
    return join(this.dir, 'data');
  }

  /** The stock client of OpenAI. */
  openai(): OpenAI {
    return new OpenAI({ baseURL: `${this.url}/v1`, apiKey: this.apiKey });
  }

  sdk(): TunefleetClient {
    return new TunefleetClient({ baseUrl: this.url, apiKey: this.apiKey });
  }

  processes(): Promise<ProcessInfo[]> {
    return descendants(this.up.pid ?? 0);
  }

  /** The one process that runs this program now; waits while it is being started again. */
  async pidOf(program: 'control-plane' | 'worker' | 'engine'): Promise<number> {
    let found: readonly ProcessInfo[] = [];
    await until(`one ${program} process`, async () => (found = (await this.processes()).filter((each) => each.program === program)).length === 1);
    return found[0]?.pid ?? 0;
  }

  /** Ends a process the hard way. @returns its process id */
  async kill(program: 'control-plane' | 'worker' | 'engine'): Promise<number> {
    const pid = await this.pidOf(program);
    process.kill(pid, 'SIGKILL');
    await until(`${program} ${pid} to be gone`, () => !isAlive(pid));
    return pid;
  }

  /** Runs the command line against this service, as a user in another terminal would. */
  cli(...args: readonly string[]): Promise<CliResult> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [cli, ...args], { cwd: this.dir, env: { ...environment(this.dir), TUNEFLEET_DATA_DIR: this.dataDir }, stdio: ['ignore', 'pipe', 'pipe'] });
      let stdout = '';
      let stderr = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      child.once('error', reject);
      child.once('close', (code) => resolve({ code, stdout, stderr }));
    });
  }

  /** Ends of the logs, for the message of a failed test. */
  logs(): Promise<string> {
    return logTails(this.dataDir);
  }

  /** As Ctrl-C would. @returns the exit code, and what is still running of the processes there were: should be none */
  async stop(): Promise<{ readonly code: number | null; readonly left: readonly ProcessInfo[] }> {
    const before = await this.processes();
    await stopProcess(this.up);
    const left = before.filter(({ pid }) => isAlive(pid));
    for (const { pid } of left) process.kill(pid, 'SIGKILL');
    await rm(this.dir, { recursive: true, force: true });
    return { code: this.up.exitCode, left };
  }
}

/** Nothing of the developer's own settings: the tests must not reach another service or a shared cache. */
function environment(dir: string): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG, TF_CPP_MIN_LOG_LEVEL = '2' } = process.env;
  return { PATH, HOME, LANG, TF_CPP_MIN_LOG_LEVEL, TUNEFLEET_CACHE_DIR: join(dir, 'cache'), TUNEFLEET_LOCAL_MODELS: join(dir, 'models') };
}

async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const force = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    child.kill('SIGINT');
    await ended;
    clearTimeout(force);
  }
}

async function logTails(dataDir: string): Promise<string> {
  const tails = await Promise.all(
    ['control-plane', 'worker-1', 'worker-2'].map(async (name) => {
      const text = await readFile(join(dataDir, 'logs', `${name}.log`), 'utf8').catch(() => '');
      return text === '' ? '' : `--- ${name}\n${text.slice(-3000)}`;
    }),
  );
  return tails.join('\n');
}
