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
    await rm(path, { force: true });
    if (!(await listen(server, path))) throw taken;
  }
  server.unref();
  // Closing removes the file; a process that exits without closing must do that itself.
  const removeFile = (): void => rmSync(path, { force: true });
  process.once('exit', removeFile);
  return () => {
    process.off('exit', removeFile);
    return new Promise((resolve) => server.close(() => resolve()));
  };
}

/** Socket paths are limited to about 100 bytes, so not in the folder itself. */
function socketPath(dataDir: string): string {
  const key = createHash('sha256').update(dataDir).digest('hex').slice(0, 24);
  return join(tmpdir(), `tunefleet-up-${process.getuid?.() ?? 0}-${key}.sock`);
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
