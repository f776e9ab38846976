import type { Row } from '../report/row';

/** @param share 0.5: the median */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** p50 and p99 of milliseconds. @param peers taken in turn with ours */
export function latencyRows(name: string, values: readonly number[], peers?: readonly number[]): Row[] {
  return [0.5, 0.99].map((share) => {
    const value = percentile(values, share);
    const peer = peers === undefined ? undefined : percentile(peers, share);
    return { name: `${name}, p${share * 100}`, unit: 'ms', value, ...(peer === undefined ? {} : { peer, ratio: value / peer }) };
  });
}

interface Cpu {
  readonly controlPlane: number;
  readonly postgres: number;
}

/** CPU time per piece of work. @param before, after as `BenchService.cpuMs` */
export function cpuRows(name: string, before: Cpu, after: Cpu, pieces: number): Row[] {
  return [
    { name: `${name}, CPU of the control plane`, unit: 'ms', value: (after.controlPlane - before.controlPlane) / pieces },
    { name: `${name}, CPU of PostgreSQL`, unit: 'ms', value: (after.postgres - before.postgres) / pieces },
  ];
}

/** Tells how far a part is, on stderr. */
export function progressOf(part: string, total: number): (done: number) => void {
  const startedAt = performance.now();
  let saidAt = startedAt;
  return (done) => {
    const nowMs = performance.now();
    if (nowMs - saidAt < 3_000 && done < total) return;
    saidAt = nowMs;
    process.stderr.write(`${part}: ${done} of ${total}, ${(((nowMs - startedAt) / done) * (total - done) / 1000).toFixed(0)} s left\n`);
  };
}
