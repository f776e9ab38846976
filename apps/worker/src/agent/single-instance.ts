import { rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sha256Hex, TunefleetError } from '@tunefleet/foundation';

export interface InstanceLock {
  release(): Promise<void>;
}

/**
 * Holds a worker folder for this process through a local socket, which the system frees however the process ends. Whoever connects
 * gets one line of JSON about the worker's health.
 * @throws conflict when another process holds it
 */
export async function lockInstance(workerDir: string, health: () => object): Promise<InstanceLock> {
  // Not in the folder itself: socket paths are limited to about 100 bytes.
  const path = instanceSocketPath(workerDir);
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.end(`${JSON.stringify(health())}\n`);
  });
  if (!(await listen(server, path))) {
    if (await isAlive(path)) throw new TunefleetError('conflict', `another worker process uses ${workerDir}; give this one its own TUNEFLEET_WORKER_NAME`);
    if (!isAbstract(path)) await rm(path, { force: true });
    if (!(await listen(server, path))) throw new TunefleetError('conflict', `another worker process has just taken ${workerDir}`);
  }
  server.unref();
  // Closing removes the file; a process that exits without closing must do that itself.
  const removeFile = (): void => {
    if (!isAbstract(path)) rmSync(path, { force: true });
  };
  process.once('exit', removeFile);
  return {
    release: () => {
      process.off('exit', removeFile);
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** On Linux a name without a file, so that a killed process leaves nothing behind. */
export function instanceSocketPath(workerDir: string): string {
  const name = `tunefleet-${process.getuid?.() ?? 0}-${sha256Hex(workerDir).slice(0, 24)}`;
  return process.platform === 'linux' ? `\0${name}` : join(tmpdir(), `${name}.sock`);
}

function isAbstract(path: string): boolean {
  return path.startsWith('\0');
}

function listen(server: Server, path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException): void => (error.code === 'EADDRINUSE' ? resolve(false) : reject(error));
    server.once('error', onError);
    server.listen(path, () => {
      server.off('error', onError);
      resolve(true);
    });
  });
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
