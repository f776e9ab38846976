import type { OpCost } from '@tunefleet/ml-tensor';

/** Ops that together take 95 % of the time of `steps` steps. @param costs dearest first */
export function printProfile(costs: readonly OpCost[], steps: number): void {
  const total = costs.reduce((sum, { seconds }) => sum + seconds, 0);
  const count = costs.reduce((sum, { calls }) => sum + calls, 0);
  process.stdout.write(`${(total / steps).toFixed(2)} s in ${Math.round(count / steps)} ops per step\n  ms/step  calls/step  ms/call    GB/s  op\n`);
  let seen = 0;
  for (const { label, calls, seconds, bytes } of costs) {
    if (seen > 0.95 * total) break;
    seen += seconds;
    const cells = [(1000 * seconds) / steps, calls / steps, (1000 * seconds) / calls, bytes / seconds / 1e9];
    process.stdout.write(`${cells.map((cell, index) => cell.toFixed(index < 2 ? 0 : 2).padStart([9, 12, 9, 8][index] ?? 0)).join('')}  ${label}\n`);
  }
}
