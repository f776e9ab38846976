// The `tunefleet` command from a checkout: sets up what is missing, then runs the program.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { runNode } from './setup/child.mjs';
import { setupOrExit } from './setup/index.mjs';
import { root } from './setup/paths.mjs';

await setupOrExit();
const program = join(root, 'dist', 'cli.mjs');
if (!existsSync(program)) {
  process.stderr.write(`${program} is missing; run \`npm run setup\`\n`);
  process.exit(1);
}
process.exitCode = await runNode(['--enable-source-maps', program, ...process.argv.slice(2)]);
