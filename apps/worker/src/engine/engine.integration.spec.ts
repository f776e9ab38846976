/** The built engine as a process: over the channel as the agent starts it, and as a command. Its folders and processes end with the tests. */
import { execFile, fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { jest } from '@jest/globals';
import { build } from 'esbuild';
import { writeTinyModel } from '@tunefleet/testing';
import { fromEngineSchema, type FromEngine } from '../engine-protocol';

jest.setTimeout(120_000);

const run = promisify(execFile);
const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../../../..');
const bundle = join(root, 'dist', `engine-test-${process.pid}`);
const engineFile = join(bundle, 'engine.mjs');
let folder: string;
let environment: NodeJS.ProcessEnv;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'engine-process-'));
  environment = { ...process.env, NODE_OPTIONS: '', TUNEFLEET_CACHE_DIR: join(folder, 'cache'), TUNEFLEET_LOCAL_MODELS: folder, TUNEFLEET_MODEL_SOURCES: 'mirror' };
  await writeTinyModel(join(folder, 'model'), { tieWordEmbeddings: false });
  // Beside the workspace's packages, which it imports.
  await build({ entryPoints: { engine: join(here, 'main.ts') }, outdir: bundle, outExtension: { '.js': '.mjs' }, bundle: true, platform: 'node', format: 'esm', packages: 'external', target: 'node20', tsconfig: join(root, 'tsconfig.base.json'), logLevel: 'silent' });
});
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(bundle, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

async function startEngine(): Promise<{ child: ChildProcess; ready: FromEngine; next: (type: FromEngine['type']) => Promise<FromEngine> }> {
  const child = fork(engineFile, [], { env: environment, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
  children.push(child);
  const next = (type: FromEngine['type']): Promise<FromEngine> =>
    new Promise((resolve, reject) => {
      const take = (raw: unknown): void => {
        const message = fromEngineSchema.parse(raw);
        if (message.type !== type) return;
        child.off('message', take);
        resolve(message);
      };
      child.on('message', take);
      child.once('exit', (code) => reject(new Error(`the engine exited with ${code} before it sent "${type}"`)));
    });
  return { child, ready: await next('ready'), next };
}

test('tells its device, refuses bad work, outlives signals and ends with the channel', async () => {
  const { child, ready, next } = await startEngine();
  expect(ready).toMatchObject({ type: 'ready', jobKinds: ['fine-tune', 'eval'], device: { kind: expect.stringMatching(/^(cpu|gpu)$/) as string } });
  child.kill('SIGINT');
  child.kill('SIGTERM');
  const failed = next('failed');
  child.send({ type: 'run', runId: 'r1', kind: 'eval', schemaVersion: 1, spec: {}, inputFiles: {}, resumeDir: null, outputDir: folder });
  expect(await failed).toMatchObject({ runId: 'r1', failure: { code: 'invalid_spec' } });
  const exited = once(child, 'exit');
  child.disconnect();
  expect((await exited)[0]).toBe(0);
});

test('exits when told to', async () => {
  const { child } = await startEngine();
  const exited = once(child, 'exit');
  child.send({ type: 'exit' });
  expect((await exited)[0]).toBe(0);
});

test('generate writes the same text for the same seed, and says what is wrong with its arguments', async () => {
  const generate = async (...args: string[]): Promise<string> => (await run(process.execPath, [engineFile, 'generate', '--model', join(folder, 'model'), '--prompt', 'spam?', '--max-tokens', '8', '--dtype', 'f32', ...args], { env: environment })).stdout;
  const text = await generate('--temperature', '1', '--seed', '4');
  expect(text.trim()).not.toBe('');
  expect(await generate('--temperature', '1', '--seed', '4')).toBe(text);
  await expect(generate('--temperature', 'hot')).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('--temperature') as string });
  await expect(run(process.execPath, [engineFile, 'dance'], { env: environment })).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('"dance" is not a command') as string });
});
