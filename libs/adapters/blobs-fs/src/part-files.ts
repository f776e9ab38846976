import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

/** A put that has not written for so long has died, wherever it ran. */
const ABANDONED_MS = 3_600_000;

const host = hostname().replaceAll(/[^A-Za-z0-9-]/g, '_');

/** Unfinished puts: `<root>/tmp/<host>.<process id>.<random>`, on the same file system as the blobs so that a rename publishes them. */
export class PartFiles {
  private readonly folder: string;

  constructor(root: string) {
    this.folder = join(root, 'tmp');
  }

  newPath(): string {
    return join(this.folder, `${host}.${process.pid}.${randomBytes(8).toString('hex')}`);
  }

  /** Creates the folder and removes what crashed puts left. Puts of other processes and machines that still run are spared. */
  async prepare(): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    const names = await readdir(this.folder);
    await Promise.all(names.map((name) => this.removeIfLeft(join(this.folder, name), name)));
  }

  private async removeIfLeft(path: string, name: string): Promise<void> {
    const info = await stat(path).catch(() => null);
    if (info !== null && isLeft(name, info.mtimeMs)) await rm(path, { force: true });
  }
}

function isLeft(name: string, writtenMs: number): boolean {
  if (Date.now() - writtenMs > ABANDONED_MS) return true;
  const [ownerHost, pidText] = name.split('.');
  if (ownerHost !== host) return false;
  const pid = Number(pidText);
  // In a container the predecessor had our process id.
  if (pid === process.pid) return writtenMs < Date.now() - process.uptime() * 1000;
  return !isRunning(pid);
}

function isRunning(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: somebody else's process, but it runs.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
