import type { PackedTokens } from './token-pool';

/**
 * Documents that follow each other, cut into rows of at most `maxLength` tokens without regard to where documents end, as language models are pre-trained
 * (transformers `examples/pytorch/language-modeling/run_clm.py`, `group_texts`): no padding, and every token stands in exactly one row. The rows are as even as can
 * be, so that none is a short rest. The first token of a row has nothing to be predicted from.
 */
export function packIntoRows({ ids, learned }: PackedTokens, maxLength: number): PackedTokens {
  const rows = Math.ceil(ids.length / maxLength);
  const shortest = Math.floor(ids.length / rows);
  const longer = ids.length - shortest * rows;
  return { lengths: Int32Array.from({ length: rows }, (_, row) => shortest + (row < longer ? 1 : 0)), ids, learned };
}
