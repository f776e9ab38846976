import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { realpath, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';

/**
 * Holds a data folder for this process through a local socket, which the system frees however the process ends.
 * @returns releases it
 * @throws conflict when another service runs on the folder
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  const path = socketPath(await realpath(dataDir));
  const server = createServer((socket) => socket.destroy());
  if (!(await listen(server, path))) {
    const taken = new TunefleetError('conflict', `a service is already running on ${dataDir}: stop it, or choose another folder with --data-dir`);
    if (await answers(path)) throw taken;
    if (!isAbstract(path)) await rm(path, { force: true });
    if (!(await listen(server, path))) throw taken;
  }
  server.unref();
  // Closing removes the file; a process that exits without closing must do that itself.
  const removeFile = (): void => {
    if (!isAbstract(path)) rmSync(path, { force: true });
  };
  process.once('exit', removeFile);
  return () => {
    process.off('exit', removeFile);
    return new Promise((resolve) => server.close(() => resolve()));
  };
}

/** On Linux a name without a file, so that a killed process leaves nothing behind. Elsewhere not in the folder itself: paths are limited to about 100 bytes. */
function socketPath(dataDir: string): string {
  const key = createHash('sha256').update(dataDir).digest('hex').slice(0, 24);
  const name = `tunefleet-up-${process.getuid?.() ?? 0}-${key}`;
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

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
