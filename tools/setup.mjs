// Makes a fresh clone ready to run; plain JavaScript without dependencies, because it runs before `npm ci`.
// Usage: node tools/setup.mjs [--only step,step]
import { parseArgs } from 'node:util';
import { setupOrExit, STEP_NAMES } from './setup/index.mjs';

const { values } = parseArgs({ options: { only: { type: 'string' }, help: { type: 'boolean', short: 'h' } } });
if (values.help) {
  process.stdout.write(`Usage: node tools/setup.mjs [--only ${STEP_NAMES.join(',')}]\n`);
  process.exit(0);
}
const ran = await setupOrExit({ only: values.only?.split(','), retryFailed: true });
if (ran.length === 0) process.stderr.write('everything is set up\n');
