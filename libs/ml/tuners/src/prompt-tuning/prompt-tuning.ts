import { assertNever, fillNormal, fillUniform } from '@tunefleet/foundation';
import type { AdapterFiles } from '@tunefleet/ml-formats';
import { embedding, scale } from '@tunefleet/ml-tensor';
import { z } from 'zod';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { badField } from '../spec-refusal';
import type { BindableModel, StartContext, TunableModel, Tuner } from '../tuner';
import { readPromptFile } from '../virtual-tokens/adapter-file';
import { embeddingPlace } from '../virtual-tokens/place';
import { asEmbeddings, PromptLearningTuner } from '../virtual-tokens/prompt-learning-tuner';
import { trainedTable } from '../virtual-tokens/table';
import type { PromptTuningSpec } from './spec';

export function createPromptTuning(spec: PromptTuningSpec, model: TunableModel): Tuner {
  return promptTuning(spec, model, null);
}

/** A PEFT folder of PROMPT_TUNING. @throws TunefleetError `incompatible_artifact` */
export function loadPromptTuning(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { fields, virtualTokens, table, notices } = readPromptFile(files, fileFields, model, embeddingPlace(model), model.hiddenSize);
  const spec: PromptTuningSpec = {
    kind: 'prompt-tuning',
    num_virtual_tokens: virtualTokens,
    prompt_tuning_init: fields.prompt_tuning_init ?? 'RANDOM',
    prompt_tuning_init_text: fields.prompt_tuning_init_text ?? null,
  };
  return openAdapter(model, promptTuning(spec, model, fields.tokenizer_name_or_path ?? null), table, notices);
}

const fileFields = {
  prompt_tuning_init: z.enum(['RANDOM', 'SAMPLE_VOCAB', 'TEXT']).nullish(),
  prompt_tuning_init_text: z.string().nullish(),
  tokenizer_name_or_path: z.string().nullish(),
  tokenizer_kwargs: z.record(z.string(), z.unknown()).nullish(),
};

/** @param tokenizer null: that of the base model */
function promptTuning(spec: PromptTuningSpec, model: TunableModel, tokenizer: string | null): Tuner {
  const { num_virtual_tokens: n, prompt_tuning_init: init, prompt_tuning_init_text: text } = spec;
  const table = trainedTable(n, model.hiddenSize, (seed, start) => firstRows(spec, seed, start));
  return new PromptLearningTuner('prompt-tuning', table, asEmbeddings, {
    peftType: 'PROMPT_TUNING',
    tag: 'prompt-tuning',
    method: 'Prompt tuning',
    virtualTokens: n,
    place: embeddingPlace(model),
    fields: (base) => ({
      prompt_tuning_init: init,
      prompt_tuning_init_text: text,
      // PEFT wants one for TEXT, also where it only loads.
      tokenizer_name_or_path: init === 'TEXT' ? (tokenizer ?? base) : null,
      tokenizer_kwargs: null,
    }),
  });
}

function firstRows({ num_virtual_tokens: n, prompt_tuning_init: init, prompt_tuning_init_text: text }: PromptTuningSpec, seed: number, { model, tokenise }: StartContext): Float32Array {
  switch (init) {
    case 'RANDOM': {
      const values = new Float32Array(n * model.hiddenSize);
      fillNormal(values, 1, seed, 0);
      return values;
    }
    case 'SAMPLE_VOCAB': {
      const places = new Float32Array(n);
      fillUniform(places, 1, seed, 0);
      return rowsOf(model, Int32Array.from(places, (place) => Math.min(model.vocabSize - 1, Math.floor(((place + 1) / 2) * model.vocabSize))));
    }
    case 'TEXT': {
      const ids = tokenise(text ?? '');
      if (ids.length === 0) throw badField('prompt_tuning_init_text', 'has no tokens; give a text');
      return rowsOf(model, Int32Array.from({ length: n }, (_, i) => ids[i % ids.length] as number));
    }
    default:
      return assertNever(init, 'prompt_tuning_init');
  }
}

/** What the model's embedding gives for tokens. @returns [ids.length, C] */
function rowsOf({ device, embeddings, embeddingScale }: BindableModel, ids: Int32Array): Float32Array {
  return device.scope(() => device.readFloats(scale(embedding(embeddings, ids, 'f32'), embeddingScale)));
}
