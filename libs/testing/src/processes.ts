import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { promisify } from 'node:util';

export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  /** Name of the bundle it runs ("engine", "worker", "control-plane"), or of the program. */
  readonly program: string;
}

/** The processes below `ancestor`, itself left out. */
export async function descendants(ancestor: number): Promise<ProcessInfo[]> {
  const { stdout } = await promisify(execFile)('ps', ['-eo', 'pid=,ppid=,args=']);
  const all = stdout.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line);
    return match === null ? [] : [{ pid: Number(match[1]), parent: Number(match[2]), program: programOf(match[3] ?? '') }];
  });
  const below = new Set([ancestor]);
  // Children may have smaller ids than their parents once ids have wrapped around: go on until nothing is added.
  for (let size = 0; size !== below.size; ) {
    size = below.size;
    for (const { pid, parent } of all) if (below.has(parent)) below.add(pid);
  }
  return all.filter(({ pid }) => pid !== ancestor && below.has(pid));
}

function programOf(commandLine: string): string {
  const bundle = /(\S+)\.mjs(\s|$)/.exec(commandLine)?.[1];
  return basename(bundle ?? commandLine.split(' ')[0] ?? '');
}

/** False also for a process that has ended and waits to be reaped. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !stat.slice(stat.lastIndexOf(')')).startsWith(') Z');
  } catch {
    return false;
  }
}
