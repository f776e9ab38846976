import { execFileSync } from 'node:child_process';

const TIMEOUT_MS = 5_000;
const MEBIBYTE = 1024 ** 2;

/** Memory of the card this process may use, bytes, as the driver's own tool tells it; null when it does not. */
export function gpuMemory(environment: NodeJS.ProcessEnv = process.env): { readonly total: number; readonly free: number } | null {
  // TensorFlow takes the last card it may see.
  const card = environment['CUDA_VISIBLE_DEVICES']?.split(',').at(-1)?.trim();
  const select = card === undefined || card === '' ? [] : ['-i', card];
  try {
    const text = execFileSync('nvidia-smi', [...select, '--query-gpu=memory.total,memory.free', '--format=csv,noheader,nounits'], { timeout: TIMEOUT_MS, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const [total, free] = (text.trim().split('\n').at(-1) ?? '').split(',').map(Number);
    if (!Number.isFinite(total) || !Number.isFinite(free)) return null;
    return { total: (total as number) * MEBIBYTE, free: (free as number) * MEBIBYTE };
  } catch {
    return null;
  }
}
