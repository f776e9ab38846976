import type { Command } from 'commander';
import { serverCommand } from '../connection/command';
import { engineCommand } from '../connection/engine-command';
import { renderTable } from '../render/table';
import { formatTime } from '../render/text';

export function registerModels(program: Command): void {
  const models = program.command('models').description('base models and tuned ones');
  serverCommand(models.command('list').description('models that can be tuned or evaluated'), async ({ client, output }) => {
    const list = await client.models.list();
    output.result(list, () =>
      renderTable(
        [
          { header: 'model', value: (model) => model.id },
          { header: 'base', value: (model) => model.parent ?? '' },
          { header: 'owner', value: (model) => model.owned_by },
          { header: 'created', value: (model) => formatTime(model.created) },
        ],
        list.data,
      ),
    );
  });
  engineCommand(models.command('export').description('write a base model as a Hugging Face folder: export <id> <dir>'), 'export');
}
