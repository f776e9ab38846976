import { cp, readdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { TunefleetError } from '@tunefleet/foundation';
import { ModelResolver, modelResolverOptions } from '@tunefleet/ml-models/specs';
import { runCommand, serverCommand } from '../connection/command';
import type { Output } from '../render/output';
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
  models
    .command('export')
    .argument('<id>', 'base model: a hub id, or the path of a folder')
    .argument('<dir>', 'folder to write; must not exist, or be empty')
    .option('--revision <name>', 'branch, tag or commit')
    .description('write a base model as a Hugging Face folder, fetching it when it is not on this machine')
    .action(async (id: string, dir: string, options: { readonly revision?: string }) => {
      await runCommand({}, (output, signal) => exportModel(id, resolve(dir), options, output, signal));
    });
}

async function exportModel(id: string, dir: string, options: { readonly revision?: string }, output: Output, signal: AbortSignal): Promise<void> {
  if (((await readdir(dir).catch(() => null)) ?? []).length > 0) throw new TunefleetError('conflict', `${dir} is not empty: remove it, or name another folder`);
  // A command of this machine's user may read what the user may read.
  const resolver = new ModelResolver({ ...modelResolverOptions(process.env), localRoots: 'any' });
  let saidPhase = '';
  const model = await resolver.resolve(id, {
    ...options,
    signal,
    onProgress: ({ phase, what }) => {
      if (phase !== saidPhase) output.note(`${phase} ${what}`);
      saidPhase = phase;
    },
  });
  for (const notice of model.notices) output.note(notice);
  await cp(model.folder, dir, { recursive: true });
  output.result({ id: model.id, revision: model.revision, source: model.source, dir }, () => `${model.id}@${model.revision}\nwritten to ${dir}`);
}
