// Runs the tests: node tools/test.mjs [any Jest arguments]. The last line is always `N passed, N failed, N skipped`.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';
import { countTests } from './test/count-tests.mjs';

await setupOrExit();

/** Unit files run beside each other; those with servers and waits have the machine to themselves. A choice of the user's is one run. */
const own = process.argv.slice(2);
const runs = own.every((argument) => argument === '--ci')
  ? [
      ['--selectProjects', 'unit', `--maxWorkers=${availableParallelism()}`, '--workerIdleMemoryLimit=4GB', ...own],
      ['--selectProjects', 'integration', 'e2e', '--runInBand', ...own],
    ]
  : [own];

const folder = mkdtempSync(join(tmpdir(), 'tunefleet-test-'));
const totals = { passed: 0, failed: 0, skipped: 0 };
let code = 0;
try {
  for (const [index, args] of runs.entries()) {
    const { exitCode, counts } = await runJest(args, join(folder, `${index}.json`));
    code ||= exitCode;
    for (const key of Object.keys(totals)) totals[key] += counts[key];
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = code === 0 && totals.failed > 0 ? 1 : code;
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);

async function runJest(args, resultFile) {
  const jest = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  const flags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const env = { ...process.env, NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} ${flags.join(' ')}`.trim() };
  const exitCode = await runNode([jest, '--json', `--outputFile=${resultFile}`, ...args], { env, cwd: root });
  try {
    return { exitCode, counts: countTests(JSON.parse(readFileSync(resultFile, 'utf8'))) };
  } catch (error) {
    process.stdout.write(`Jest left no results: ${error.message}\n`);
    return { exitCode: exitCode || 1, counts: countTests(undefined) };
  }
}
