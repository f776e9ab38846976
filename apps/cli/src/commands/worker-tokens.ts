import { InvalidArgumentError, type Command } from 'commander';
import type { CreateWorkerToken, WorkerTokenView } from '@tunefleet/contracts';
import { serverCommand } from '../connection/command';
import { keyValue, wholeNumber } from '../render/arguments';
import { renderTable } from '../render/table';
import { formatTime } from '../render/text';

interface CreateOptions {
  readonly note?: string;
  readonly uses?: number | 'any';
  readonly expires?: number | 'never';
  readonly name?: string;
  readonly label?: Readonly<Record<string, string>>;
}

export function registerWorkerTokens(workers: Command): void {
  const tokens = workers.command('tokens').description('tokens by which workers join the fleet');
  serverCommand<CreateOptions>(
    tokens
      .command('create')
      .option('--uses <count>', 'how many workers may join with it, or "any" (default: 1)', orWord('any', wholeNumber(1, 10_000)))
      .option('--expires <time>', '30m, 12h, 7d, or "never" (default: 24h)', orWord('never', seconds))
      .option('--name <pattern>', 'what these workers may be called, * for any text')
      .option('--label <key=pattern>', 'a label they may offer, repeatable; with one given, no others', keyValue)
      .option('--note <text>', 'what it is for')
      .description('make one; it is shown this once'),
    async ({ client, output, options }) => {
      const made = await client.workers.tokens.create(requestOf(options));
      output.result(made, () => `${made.token}\n\nFor the new worker: TUNEFLEET_WORKER_TOKEN=<token> tunefleet worker --control-plane <host:port>. It is not shown again; take it back with "tunefleet workers tokens revoke ${made.id}".`);
    },
  );

  serverCommand(tokens.command('list', { isDefault: true }).description('tokens with what is left of them, newest first'), async ({ client, output }) => {
    const list = await client.workers.tokens.list();
    output.result(list, () => renderTable(COLUMNS, list.data));
  });

  serverCommand(tokens.command('revoke').argument('<id>').description('nobody joins with it any more; workers that have stay'), async ({ client, output }, [id = '']) => {
    const token = await client.workers.tokens.revoke(id);
    output.result(token, () => `${token.id} ${token.state}`);
  });
}

export function requestOf({ note, uses, expires, name, label }: CreateOptions): CreateWorkerToken {
  return {
    ...(note === undefined ? {} : { note }),
    ...(uses === undefined ? {} : { uses }),
    ...(expires === undefined ? {} : { expires_in_seconds: expires }),
    ...(name === undefined ? {} : { name }),
    ...(label === undefined ? {} : { labels: label }),
  };
}

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

export function seconds(text: string): number {
  const [, count, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count === undefined || Number(count) === 0) throw new InvalidArgumentError(`a time such as 30m, 12h or 7d is needed, not "${text}".`);
  return Number(count) * (UNIT_SECONDS[unit] ?? 1);
}

function orWord<Word extends string>(word: Word, parse: (text: string) => number): (text: string) => number | Word {
  return (text) => (text === word ? word : parse(text));
}

const COLUMNS = [
  { header: 'token', value: (token: WorkerTokenView) => token.id },
  { header: 'state', value: (token: WorkerTokenView) => token.state.replace('_', ' ') },
  { header: 'used', value: (token: WorkerTokenView) => (token.max_uses === null ? String(token.uses) : `${token.uses} of ${token.max_uses}`), align: 'right' },
  { header: 'names', value: (token: WorkerTokenView) => token.name ?? 'any' },
  { header: 'labels', value: (token: WorkerTokenView) => (token.labels === null ? 'any' : Object.entries(token.labels).map(([name, value]) => `${name}=${value}`).join(' ') || 'none') },
  { header: 'expires', value: (token: WorkerTokenView) => (token.expires_at === null ? 'never' : formatTime(token.expires_at)) },
  { header: 'note', value: (token: WorkerTokenView) => token.note ?? '' },
] as const;
