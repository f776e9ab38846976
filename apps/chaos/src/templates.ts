import type { CreateEval, CreateFineTuningJob } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { chatRows } from '@tunefleet/testing';

/** A job as it is submitted again and again: the same request with the same seed, so that every one of its runs must be the same. */
export interface Template {
  readonly name: string;
  /** How often it is drawn, relative to the others. */
  readonly weight: number;
  readonly request: { readonly kind: 'fine-tune'; readonly body: CreateFineTuningJob } | { readonly kind: 'eval'; readonly body: CreateEval };
}

interface Tune {
  readonly rows: number;
  readonly epochs: number;
  readonly batchSize: number;
  /** 0: at the end of each epoch only. */
  readonly checkpointEvery: number;
}

const TUNES: readonly (Tune & { readonly name: string; readonly weight: number })[] = [
  { name: 'short', weight: 3, rows: 30, epochs: 4, batchSize: 1, checkpointEvery: 20 },
  { name: 'wide', weight: 2, rows: 48, epochs: 5, batchSize: 3, checkpointEvery: 0 },
  { name: 'long', weight: 3, rows: 60, epochs: 5, batchSize: 1, checkpointEvery: 40 },
];
const EVAL_ROWS = 80;

export async function tuneTemplates(client: TunefleetClient, model: string): Promise<Template[]> {
  return Promise.all(
    TUNES.map(async ({ name, weight, rows, epochs, batchSize, checkpointEvery }): Promise<Template> => {
      const file = await client.files.upload({ content: chatRows(rows), filename: `${name}.jsonl`, purpose: 'fine-tune' });
      const hyperparameters = { n_epochs: epochs, batch_size: batchSize, learning_rate: 1e-3, checkpoint_every_steps: checkpointEvery };
      return {
        ...{ name, weight },
        request: {
          kind: 'fine-tune',
          body: {
            ...{ model, training_file: file.id, seed: 5, max_seq_length: 128 },
            method: { type: 'supervised', supervised: { hyperparameters } },
            tuner: { kind: 'lora', r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: 'all-linear' },
            // `auto` is measured, and may come out otherwise on a busy machine.
            compute_dtype: 'f32',
          },
        },
      };
    }),
  );
}

/** @param adapter the tuned model that is held against its base */
export async function evalTemplate(client: TunefleetClient, model: string, adapter: string): Promise<Template> {
  const rows = await client.files.upload({ content: chatRows(EVAL_ROWS, 1000), filename: 'eval.jsonl', purpose: 'evals' });
  return { name: 'eval', weight: 2, request: { kind: 'eval', body: { model: adapter, compare_to: model, file: rows.id, metric: { type: 'label_likelihood', labels: ['ham', 'spam'] }, samples: 4 } } };
}
