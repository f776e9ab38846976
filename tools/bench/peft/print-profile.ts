import type { SideResult } from './engine-side';

/** Ops that together take 95 % of the time of a step. */
export function printProfile(side: SideResult, { steps }: { readonly steps: number }): void {
  const costs = side.op_costs ?? [];
  const total = costs.reduce((sum, { seconds }) => sum + seconds, 0);
  process.stdout.write(`${(total / (steps - 1)).toFixed(2)} s in ops per step\n  ms/step  calls/step  ms/call    GB/s  op\n`);
  let seen = 0;
  for (const { label, calls, seconds, bytes } of costs) {
    if (seen > 0.95 * total) break;
    seen += seconds;
    const cells = [(1000 * seconds) / (steps - 1), calls / (steps - 1), (1000 * seconds) / calls, bytes / seconds / 1e9];
    process.stdout.write(`${cells.map((cell, index) => cell.toFixed(index < 2 ? 0 : 2).padStart([9, 12, 9, 8][index] ?? 0)).join('')}  ${label}\n`);
  }
}
