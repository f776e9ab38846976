import { join, relative } from 'node:path';
import type { Command } from 'commander';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { systemClock } from '@tunefleet/foundation';
import { runCommand } from '../../connection/command';
import { dataDirOf } from '../../connection/find-connection';
import { wholeNumber } from '../../render/arguments';
import { EXIT } from '../../render/exit-code';
import { noteLogger, type Output } from '../../render/output';
import { quickstartData } from './data';
import { Phases } from './phases';
import { recipe } from './recipe';
import { cancelLeftovers, runRecipe } from './run';
import { openService } from './service';
import { renderSummary } from './summary';

interface QuickstartOptions {
  readonly keep?: boolean;
  readonly port: number;
  readonly dataDir?: string;
  readonly json?: boolean;
}

/** From nothing to a tuned, evaluated adapter, through the real service. */
export function registerQuickstart(program: Command): void {
  program
    .command('quickstart')
    .description(`tune ${recipe.baseModel} on e-mails (spam or not), evaluate it, and fetch the adapter: the whole path on this machine`)
    .option('--keep', 'leave the service up; "tunefleet down" stops it')
    .option('--port <port>', 'HTTP port; 0: any free one', wholeNumber(0, 65_535), 0)
    .option('--data-dir <dir>', 'where all data lies (default: TUNEFLEET_DATA_DIR, or .tunefleet)')
    .option('--json', 'print the report as JSON')
    .action(async (options: QuickstartOptions) => {
      await runCommand(options, (output, signal) => quickstart(options, output, signal));
    });
}

async function quickstart(options: QuickstartOptions, output: Output, signal: AbortSignal): Promise<number> {
  const dataDir = dataDirOf(options, process.env, process.cwd());
  const dir = join(dataDir, 'quickstart');
  const phases = new Phases(systemClock);
  const said = options.json === true ? besideResults(output) : output;

  said.note('Starting the service: database, control plane, one worker');
  const service = await phases.measure('start', () =>
    openService({ dataDir, port: options.port, keep: options.keep ?? false, environment: process.env, logger: noteLogger(said), signal }),
  );
  // A second Ctrl-C ends this process at once; what it has started must not be left.
  const onExit = (): void => service.kill();
  process.once('exit', onExit);
  let done = false;
  try {
    said.note(service.found ? `Using the service that runs at ${service.url}` : `It is up at ${service.url}; logs are in ${relative(process.cwd(), join(dataDir, 'logs'))}`);
    const client = new TunefleetClient({ baseUrl: service.url, apiKey: service.apiKey });
    if (!service.found) await cancelLeftovers(client);
    const data = await phases.measure('data', () => quickstartData());
    const report = await runRecipe({ client, data, dir, output: said, phases, signal });
    const mail = report.example === null ? null : data.mailOfTestRow(report.example.row);
    output.result(report, () => `\n${renderSummary(report, mail, service.found || options.keep === true)}`);
    done = true;
    return EXIT.ok;
  } finally {
    if (signal.aborted) said.note('stopping (Ctrl-C again: at once)');
    if (!(done && options.keep === true)) await service.stop();
    process.off('exit', onExit);
  }
}

/** For `--json`: what is said on the way goes where notes go, as plain lines. */
function besideResults(output: Output): Output {
  return {
    ...output,
    json: false,
    interactive: false,
    item: (_value, text) => {
      const line = text();
      if (line !== null) output.note(line);
    },
  };
}
