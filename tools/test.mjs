// Runs the tests: node tools/test.mjs [any Jest arguments]. The last line is always `N passed, N failed, N skipped`.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';
import { countTests } from './test/count-tests.mjs';

await setupOrExit();

const folder = mkdtempSync(join(tmpdir(), 'tunefleet-test-'));
const resultFile = join(folder, 'results.json');
let code = 1;
let results;
try {
  const jest = join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  const flags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const env = { ...process.env, NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} ${flags.join(' ')}`.trim() };
  code = await runNode([jest, '--json', `--outputFile=${resultFile}`, ...process.argv.slice(2)], { env, cwd: root });
  results = JSON.parse(readFileSync(resultFile, 'utf8'));
} catch (error) {
  process.stdout.write(`Jest left no results: ${error.message}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const totals = countTests(results);
process.exitCode = code === 0 && totals.failed > 0 ? 1 : code;
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
