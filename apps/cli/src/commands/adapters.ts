import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AdapterView } from '@tunefleet/contracts';
import { serverCommand } from '../connection/command';
import { findAdapter } from '../connection/find-adapter';
import { pullAdapter } from '../connection/pull-adapter';
import { renderFields, renderTable } from '../render/table';
import { formatBytes, formatTime } from '../render/text';
import { registerAdaptersExport } from './adapters-export';

export function registerAdapters(program: Command): void {
  const adapters = program.command('adapters').description('tuned weights, as PEFT folders');

  serverCommand(adapters.command('list').description('adapters on record, newest first'), async ({ client, output }) => {
    const list = await client.adapters.list();
    output.result(list, () => renderTable(ADAPTER_COLUMNS, list.data));
  });

  serverCommand(adapters.command('get').argument('<id or name>').description('one adapter'), async ({ client, output }, [name = '']) => {
    const adapter = await findAdapter(client, name);
    output.result(adapter, () =>
      renderFields([
        ['id', adapter.id],
        ['name', adapter.name],
        ['base model', `${adapter.base_model}@${adapter.base_revision}`],
        ['tuner', adapter.tuner],
        ['job', adapter.job_id],
        ['created', formatTime(adapter.created_at)],
        ['files', adapter.files.map((file) => `${file.name} (${formatBytes(file.bytes)})`).join(', ')],
      ]),
    );
  });

  serverCommand(
    adapters
      .command('pull')
      .argument('<id or name>')
      .argument('[dir]', 'folder to write; must not exist, or hold the same adapter')
      .description('download an adapter as a PEFT folder'),
    async ({ client, output, signal }, [name = '', dir]) => {
      const adapter = await findAdapter(client, name);
      const target = resolve(dir ?? adapter.id);
      await pullAdapter(client, adapter, target, signal);
      output.result({ id: adapter.id, name: adapter.name, dir: target, files: adapter.files }, () => `${adapter.name}\nwritten to ${target}`);
    },
  );

  registerAdaptersExport(adapters);
}

const ADAPTER_COLUMNS = [
  { header: 'id', value: (adapter: AdapterView) => adapter.id },
  { header: 'name', value: (adapter: AdapterView) => adapter.name },
  { header: 'tuner', value: (adapter: AdapterView) => adapter.tuner },
  { header: 'size', value: (adapter: AdapterView) => formatBytes(adapter.files.reduce((sum, file) => sum + file.bytes, 0)), align: 'right' },
  { header: 'created', value: (adapter: AdapterView) => formatTime(adapter.created_at) },
] as const;
