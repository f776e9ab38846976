import type { Device } from '../../device';
import type { FloatDType } from '../../dtype';
import type { Tensor } from '../../tensor';
import { eachRange, MASKED, type AttentionMask } from './masks';
import { keysIn, queryBlocks, type QueryBlock } from './query-blocks';

/** A mask on a device: as what every query sees where attention is a fused op, else in blocks of queries, each over the keys that they see. */
export interface BlockMask {
  readonly queries: number;
  readonly keys: number;
  /** i32 [1 or B, its queries, ranges, 2], see `AttentionMask`. */
  readonly visible: Tensor | null;
  readonly blocks: readonly MaskedBlock[];
}

export interface MaskedBlock extends QueryBlock {
  /** [1 or B, 1, its queries or 1, its keys] f32, added to the scores; null: each of its queries sees each of its keys. */
  readonly mask: Tensor | null;
}

/** @param dtype of the queries   @returns the caller's: see `disposeBlockMask` */
export function blockMask(device: Device, mask: AttentionMask, dtype: FloatDType = 'f32'): BlockMask {
  const { ranges, rows, queries, keys } = mask;
  if (device.fused && dtype === 'f32') return { queries, keys, visible: device.tensor(ranges, [rows, queries, ranges.length / (2 * rows * queries), 2], 'i32'), blocks: [] };
  return { queries, keys, visible: null, blocks: queryBlocks(mask).map((block) => ({ ...block, mask: maskOf(device, mask, block) })) };
}

export function disposeBlockMask(mask: BlockMask): void {
  for (const tensor of tensorsOfBlockMask(mask)) tensor.dispose();
}

/** Its tensors, for whoever must say what a computation reads. */
export function tensorsOfBlockMask({ visible, blocks }: BlockMask): Tensor[] {
  return [visible, ...blocks.map(({ mask }) => mask)].filter((tensor) => tensor !== null);
}

function maskOf(device: Device, mask: AttentionMask, { from, to, keys }: QueryBlock): Tensor | null {
  const width = keysIn(keys);
  const own = new Float32Array(mask.rows * (to - from) * width).fill(MASKED);
  let at = 0;
  for (let row = 0; row < mask.rows; row++) {
    for (let query = from; query < to; query++) {
      for (const [first, last] of keys) {
        eachRange(mask, row, query, (start, end) => own.fill(0, at + Math.max(start, first) - first, at + Math.max(0, Math.min(end, last) - first)));
        at += last - first;
      }
    }
  }
  return own.some((value) => value !== 0) ? device.tensor(own, [mask.rows, 1, to - from, width], 'f32') : null;
}
