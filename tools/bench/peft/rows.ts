import type { BenchCase, PeerBatching } from './cases';
import type { SideResult } from './engine-side';

export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly peer?: number;
  readonly ratio?: number;
}

/** All runs of one side. */
export interface Side {
  /** Null: ours. */
  readonly peer: PeerBatching | null;
  readonly dtype: 'f32' | 'bf16';
  readonly runs: readonly SideResult[];
}

/** Speed and memory of ours, by dtype, against every way in which the peer batches, in the faster of its dtypes. */
export function rowsOf({ name, peers }: BenchCase, sides: readonly Side[]): Row[] {
  return sides
    .filter(({ peer }) => peer === null)
    .flatMap((ours) => {
      const against = peers.flatMap((peer) => fastest(sides.filter((side) => side.peer === peer)) ?? []);
      const label = `${name}, ${ours.dtype}`;
      if (against.length === 0) return [{ name: `${label}: speed`, unit: 'tokens/s', value: speed(ours) }, { name: `${label}: peak memory`, unit: 'MB RSS', value: peak(ours) }, { name: `${label}: first step`, unit: 's', value: firstStep(ours) }];
      return against.flatMap((theirs) => {
        const beside = peers.length > 1 ? `${label} against ${theirs.peer}` : label;
        return [row(`${beside}: speed`, 'tokens/s', speed(ours), speed(theirs)), row(`${beside}: peak memory`, 'MB RSS', peak(ours), peak(theirs)), row(`${beside}: first step`, 's', firstStep(ours), firstStep(theirs))];
      });
    });
}

export function row(name: string, unit: string, value: number, peer: number): Row {
  return { name, unit, value, peer, ratio: value / peer };
}

/** Tokens of all steps but the first by their seconds; the median of the runs. */
export function speed({ runs }: Pick<Side, 'runs'>): number {
  return median(runs.map(({ step_seconds, step_tokens }) => sum(step_tokens.slice(1)) / sum(step_seconds.slice(1))));
}

function peak({ runs }: Side): number {
  return median(runs.map((run) => run.peak_rss_bytes / 1e6));
}

function firstStep({ runs }: Side): number {
  return median(runs.map((run) => run.step_seconds[0] ?? NaN));
}

function fastest(sides: readonly Side[]): Side | undefined {
  return [...sides].sort((a, b) => speed(b) - speed(a))[0];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}
