import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runChaos } from './chaos-run';
import { faults, type FaultName } from './faults';
import { isSound, printReport } from './report';
import { Log } from './say';

const HELP = `The whole service as real processes, with faults; a check of its record at the end.

  --minutes M     how long faults come (default 5); start and end are on top
  --seed N        the plan of faults and users (default: a fresh one)
  --workers N     1 to 8 (default 3)
  --between S     seconds between faults, on average (default 4)
  --only TEXT     only faults whose name contains it; again for more
  --keep          keep the logs of all processes also when every rule held
`;
const LEASE_SECONDS = 8;

const { values } = parseArgs({
  options: { minutes: { type: 'string' }, seed: { type: 'string' }, workers: { type: 'string' }, between: { type: 'string' }, only: { type: 'string', multiple: true }, keep: { type: 'boolean' }, help: { type: 'boolean' } },
});
if (values.help === true) process.stdout.write(HELP);
else process.exitCode = await run();

async function run(): Promise<number> {
  const minutes = number('minutes', values.minutes ?? '5', 0.1, 24 * 60);
  const seed = Math.floor(number('seed', values.seed ?? `${Date.now() % 1_000_000_000}`, 0, Number.MAX_SAFE_INTEGER));
  const workers = Math.floor(number('workers', values.workers ?? '3', 1, 8));
  const between = number('between', values.between ?? '4', 0.1, 600);
  const only = values.only ?? [''];
  const kinds = (Object.keys(faults) as FaultName[]).filter((name) => only.some((text) => name.includes(text)));
  if (kinds.length === 0) fail(`no fault is called like ${only.join(' or ')}; there are: ${Object.keys(faults).join('; ')}`);
  const log = new Log((line) => process.stdout.write(`${line}\n`));
  log.print(`seed ${seed}, ${minutes} min of faults, ${workers} workers, a lease of ${LEASE_SECONDS} s`);
  const programs = join(dirname(fileURLToPath(import.meta.url)), '..');
  const report = await runChaos({ seed, workers, kinds, programs, faultsMs: minutes * 60_000, betweenFaultsMs: between * 1_000, leaseSeconds: LEASE_SECONDS }, log);
  const options = [`--minutes=${minutes}`, `--seed=${seed}`, ...(values.workers === undefined ? [] : [`--workers=${workers}`]), ...(values.between === undefined ? [] : [`--between=${between}`]), ...(values.only ?? []).map((text) => `--only='${text}'`)];
  printReport(report, seed, `npx nx run chaos:run ${options.join(' ')}`, log);
  const sound = isSound(report);
  // What is broken is explained by the logs.
  if (sound && values.keep !== true) await rm(report.dir, { recursive: true, force: true });
  return sound ? 0 : 1;
}

function number(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= min && value <= max) return value;
  return fail(`--${name} must be a number from ${min} to ${max}, not "${text}"`);
}

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}
