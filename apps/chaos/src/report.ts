import type { ChaosReport } from './chaos-run';
import type { Log } from './say';

const SHOWN_MAX = 10;

export function isSound({ verdicts, troubles }: ChaosReport): boolean {
  return troubles.length === 0 && verdicts.every(({ broken, looked }) => broken.length === 0 && looked > 0);
}

/** The table at the end, and how to do it again. */
export function printReport(report: ChaosReport, seed: number, again: string, log: Log): void {
  const { record, verdicts, troubles, faults, acts, refusals, dir } = report;
  log.print('');
  log.print(`faults     ${counted(faults)}`);
  log.print(`users      ${counted(acts)}`);
  log.print(`refusals   ${counted(refusals)}`);
  log.print(`jobs       ${counted(tally(record.jobs.map(({ kind, status }) => `${kind} ${status}`)))}`);
  log.print(`attempts   ${counted(tally(record.attempts.map(({ outcome, status }) => outcome ?? status)))}; ${record.attempts.filter(({ resumed }) => resumed).length} resumed from a checkpoint`);
  log.print('');
  for (const { rule, looked, broken } of verdicts) {
    const verdict = broken.length > 0 ? `BROKEN ${broken.length} times` : looked === 0 ? 'NOTHING TO LOOK AT' : 'held';
    log.print(`${rule.padEnd(64)} ${String(looked).padStart(6)}  ${verdict}`);
    for (const each of broken.slice(0, SHOWN_MAX)) log.print(`    ${each}`);
  }
  for (const trouble of troubles) log.print(`TROUBLE ${trouble}`);
  log.print('');
  log.print(isSound(report) ? `seed ${seed}: every rule held` : `seed ${seed}: FAILED; the logs are in ${dir}/logs`);
  log.print(`again: ${again}`);
}

function tally(words: readonly string[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}

function counted(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([what, count]) => `${count} ${what}`).join(', ') || 'none';
}
