import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { redisMissing } from '@tunefleet/testing';
import { runChaos, type ChaosReport } from './chaos-run';
import type { FaultName } from './faults';
import { isSound, printReport } from './report';
import { Log } from './say';

// The short form of `npx nx run chaos:run`: two workers, one fault of each family, in an order that the seed says. What was built is what runs.

const SEED = 7;
const KINDS: readonly FaultName[] = ['kill -9 of a worker', 'kill -9 of an engine', 'kill -9 of a replica while it assigns', 'kill -9 of PostgreSQL', 'FLUSHALL of Redis', 'a worker moved to the other replica', 'a line that swallows everything'];
const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');

(redisMissing === null ? test : test.skip)(
  'whatever is killed, flushed or cut: each job ends once, as wanted, with the bytes of an undisturbed run',
  async () => {
    const lines: string[] = [];
    const log = new Log((line) => lines.push(line));
    let report: ChaosReport | undefined;
    try {
      report = await runChaos({ seed: SEED, kinds: KINDS, workers: 2, leaseSeconds: 8, faultsMs: 24_000, betweenFaultsMs: 2_500, programs: join(root, 'dist') }, log);
      printReport(report, SEED, `npx nx run chaos:run --minutes=0.4 --seed=${SEED} --workers=2 --between=2.5 ${KINDS.map((kind) => `--only='${kind}'`).join(' ')}`, log);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${lines.join('\n')}`, { cause: error });
    }
    if (!isSound(report)) throw new Error(lines.join('\n'));
    const faults = [...report.faults.values()].reduce((sum, count) => sum + count, 0);
    expect(faults).toBeGreaterThanOrEqual(4);
    // Something was disturbed: a run in which nothing happened proves nothing.
    expect(report.record.attempts.length).toBeGreaterThan(report.record.attempts.filter(({ outcome }) => outcome === 'succeeded').length);
    await rm(report.dir, { recursive: true, force: true });
  },
  // About a minute and a half; longer where others use the machine.
  900_000,
);
