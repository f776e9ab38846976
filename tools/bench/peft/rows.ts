import type { BenchCase, PeerBatching } from './cases';
import type { SideResult } from './engine-side';
import { median, rowBeside, type Row } from '../report/row';

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
        return [rowBeside(`${beside}: speed`, 'tokens/s', speed(ours), speed(theirs)), rowBeside(`${beside}: peak memory`, 'MB RSS', peak(ours), peak(theirs)), rowBeside(`${beside}: first step`, 's', firstStep(ours), firstStep(theirs))];
      });
    });
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
