import type { Device } from '../../device';
import type { Tensor } from '../../tensor';
import { keysIn, queryBlocks, type QueryBlock } from './query-blocks';
import type { AttentionMask } from './masks';

/** A mask on a device, in blocks of queries, each over the keys that they see. */
export interface BlockMask {
  readonly queries: number;
  readonly keys: number;
  readonly blocks: readonly MaskedBlock[];
}

export interface MaskedBlock extends QueryBlock {
  /** [1 or B, 1, its queries or 1, its keys] f32, added to the scores; null: each of its queries sees each of its keys. */
  readonly mask: Tensor | null;
}

/** @returns the caller's: see `disposeBlockMask` */
export function blockMask(device: Device, mask: AttentionMask): BlockMask {
  return { queries: mask.queries, keys: mask.keys, blocks: queryBlocks(mask).map((block) => ({ ...block, mask: maskOf(device, mask, block) })) };
}

export function disposeBlockMask({ blocks }: BlockMask): void {
  for (const { mask } of blocks) mask?.dispose();
}

/** Its tensors, for whoever must say what a computation reads. */
export function tensorsOfBlockMask({ blocks }: BlockMask): Tensor[] {
  return blocks.flatMap(({ mask }) => mask ?? []);
}

function maskOf(device: Device, { values, rows, queries, keys }: AttentionMask, { from, to, keys: ranges }: QueryBlock): Tensor | null {
  const width = keysIn(ranges);
  const own = new Float32Array(rows * (to - from) * width);
  let at = 0;
  for (let row = 0; row < rows; row++) {
    for (let query = from; query < to; query++) {
      for (const [start, end] of ranges) {
        const line = (row * queries + query) * keys;
        own.set(values.subarray(line + start, line + end), at);
        at += end - start;
      }
    }
  }
  return own.some((value) => value !== 0) ? device.tensor(own, [rows, 1, to - from, width], 'f32') : null;
}
