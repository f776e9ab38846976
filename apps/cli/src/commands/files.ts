import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { uploadPurposes, type ApiFile, type UploadPurpose } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { saveStream } from '../connection/save-stream';
import { wholeNumber } from '../render/arguments';
import { renderFields, renderTable } from '../render/table';
import { formatBytes, formatTime } from '../render/text';

export function registerFiles(program: Command): void {
  const files = program.command('files').description('training and evaluation data, and what jobs write');

  serverCommand<{ readonly purpose: UploadPurpose }>(
    files
      .command('upload')
      .argument('<path>', 'JSON Lines file: one conversation, or prompt and completion, a line')
      .addOption(new Option('--purpose <purpose>', 'what it is for').choices(uploadPurposes).default('fine-tune'))
      .description('store a file'),
    async ({ client, output, options, signal }, [path]) => {
      const file = resolve(path ?? '');
      const found = await stat(file).catch(() => null);
      if (!found?.isFile()) throw new TunefleetError('invalid_input', `${file} is not a file: give the path of a JSON Lines file`);
      const stored = await client.files.upload({ path: file, purpose: options.purpose, signal });
      output.result(stored, () => describeFile(stored));
    },
  );

  serverCommand<{ readonly purpose?: string; readonly limit: number }>(
    files
      .command('list')
      .option('--purpose <purpose>', 'only these')
      .option('--limit <count>', 'newest first, at most so many', wholeNumber(1, 10_000), 100)
      .description('stored files'),
    async ({ client, output, options }) => {
      const list = await client.files.list({ limit: options.limit, purpose: options.purpose });
      output.result(list, () => renderTable(FILE_COLUMNS, list.data));
    },
  );

  serverCommand(files.command('get').argument('<id>').description('one file'), async ({ client, output }, [id = '']) => {
    const file = await client.files.get(id);
    output.result(file, () => describeFile(file));
  });

  serverCommand<{ readonly output?: string }>(
    files
      .command('content')
      .argument('<id>')
      .option('-o, --output <path>', 'write here instead of to standard output')
      .description("a file's bytes"),
    async ({ client, output, options, signal }, [id = '']) => {
      const content = await client.files.content(id, { signal });
      await saveStream(content, options.output);
      if (options.output !== undefined) output.note(`written to ${options.output}`);
    },
  );

  serverCommand(files.command('delete').argument('<id>').description('remove a file; runs that used it stay on record'), async ({ client, output }, [id = '']) => {
    const deleted = await client.files.delete(id);
    output.result(deleted, () => `${deleted.id} deleted`);
  });
}

const FILE_COLUMNS = [
  { header: 'id', value: (file: ApiFile) => file.id },
  { header: 'name', value: (file: ApiFile) => file.filename },
  { header: 'purpose', value: (file: ApiFile) => file.purpose },
  { header: 'size', value: (file: ApiFile) => formatBytes(file.bytes), align: 'right' },
  { header: 'created', value: (file: ApiFile) => formatTime(file.created_at) },
] as const;

function describeFile(file: ApiFile): string {
  return renderFields([
    ['id', file.id],
    ['name', file.filename],
    ['purpose', file.purpose],
    ['size', formatBytes(file.bytes)],
    ['sha256', file.sha256],
    ['created', formatTime(file.created_at)],
    ['status', file.status],
  ]);
}
