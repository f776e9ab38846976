import { readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';

/** The processor's or card's trade name as the operating system gives it; the addon knows only "GPU:0". */
export function hardwareName(gpu: boolean): string {
  if (gpu) return nvidiaName() ?? 'GPU';
  return cpus()[0]?.model.trim() ?? 'CPU';
}

function nvidiaName(): string | undefined {
  const folder = '/proc/driver/nvidia/gpus';
  try {
    const names = readdirSync(folder).map((card) => /^Model:\s*(.+)$/m.exec(readFileSync(join(folder, card, 'information'), 'utf8'))?.[1]);
    return names.filter((name) => name !== undefined).at(-1);
  } catch {
    return undefined;
  }
}
