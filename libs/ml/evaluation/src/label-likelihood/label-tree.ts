import { commonLength } from '@tunefleet/ml-generation';
import type { LabelSequence } from './label-sequences';

/**
 * A row's label sequences with what they have in common stored once. The last token of a sequence is scored but never fed to the model.
 */
export interface LabelTree {
  /** Tokens with which all sequences begin. */
  readonly trunk: Int32Array;
  readonly labels: readonly LabelBranch[];
}

export interface LabelBranch {
  /** Tokens after the trunk; empty when the trunk holds all of the label. */
  readonly tokens: Int32Array;
  /** Position of the label's first token in trunk + branch, at least 1. */
  readonly answerStart: number;
}

export function labelTree(sequences: readonly LabelSequence[]): LabelTree {
  const first = sequences[0]?.ids ?? new Int32Array(0);
  const shared = Math.min(...sequences.map(({ ids }) => commonLength(first, ids)));
  return { trunk: first.slice(0, shared), labels: sequences.map(({ ids, answerStart }) => ({ tokens: ids.slice(shared), answerStart })) };
}

/** Tokens with which all trees begin and which no label needs to be read from: they can be fed once for all. */
export function sharedPrefix(trees: readonly LabelTree[]): Int32Array {
  const first = trees[0]?.trunk ?? new Int32Array(0);
  const length = trees.reduce((shared, { trunk, labels }) => Math.min(shared, commonLength(first, trunk), ...labels.map(({ answerStart }) => answerStart - 1)), first.length);
  return first.slice(0, length);
}

/** Tokens to feed for a tree behind `prefix` shared ones. */
export function columnsOf({ trunk, labels }: LabelTree, prefix: number): number {
  return trunk.length - prefix + labels.reduce((total, { tokens }) => total + Math.max(0, tokens.length - 1), 0);
}

/** Padding up to a multiple: fewer different shapes, which the device prepares once each. */
const COLUMNS_MULTIPLE = 8;
const ROWS_MAX = 16;

export function paddedColumns(trees: readonly LabelTree[], prefix: number): number {
  return Math.ceil(Math.max(...trees.map((tree) => columnsOf(tree, prefix))) / COLUMNS_MULTIPLE) * COLUMNS_MULTIPLE;
}

/**
 * Which trees to feed together: of similar length, a power of two of them, and no more than `tokensMax` tokens with padding unless one alone has more.
 * @returns groups of indices into `trees`
 */
export function planBatches(trees: readonly LabelTree[], prefix: number, tokensMax: number): number[][] {
  const order = [...trees.keys()].sort((a, b) => columnsOf(trees[a] as LabelTree, prefix) - columnsOf(trees[b] as LabelTree, prefix) || a - b);
  const groups: number[][] = [];
  for (let begin = 0; begin < order.length; ) {
    let size = ROWS_MAX;
    const group = (): number[] => order.slice(begin, begin + size);
    const tooLarge = (): boolean => begin + size > order.length || size * paddedColumns(group().map((index) => trees[index] as LabelTree), prefix) > tokensMax;
    while (size > 1 && tooLarge()) size /= 2;
    groups.push(group());
    begin += size;
  }
  return groups;
}
