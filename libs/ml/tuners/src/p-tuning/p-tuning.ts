import { fillNormal } from '@tunefleet/foundation';
import type { AdapterFiles } from '@tunefleet/ml-formats';
import { z } from 'zod';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import { readPromptFile } from '../virtual-tokens/adapter-file';
import { embeddingPlace } from '../virtual-tokens/place';
import { asEmbeddings, PromptLearningTuner } from '../virtual-tokens/prompt-learning-tuner';
import { encodedTable, trainedTable, type VirtualTokenTable } from '../virtual-tokens/table';
import type { PTuningSpec } from './spec';

export function createPTuning({ num_virtual_tokens: n, encoder_hidden_size, ...spec }: PTuningSpec, model: TunableModel): Tuner {
  const C = model.hiddenSize;
  const hidden = encoder_hidden_size ?? C;
  const table = encodedTable({ n, sizes: [C, hidden, hidden, C], activation: 'relu', name: 'mlp_head', zeroInitLast: false });
  return pTuning({ ...spec, encoder_hidden_size: hidden }, n, model, table);
}

/** A PEFT folder of P_TUNING: what the encoder made, which is what can be trained further. @throws TunefleetError `incompatible_artifact` */
export function loadPTuning(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const { hiddenSize: C } = model;
  const { fields, virtualTokens: n, table, notices } = readPromptFile(files, fileFields, model, embeddingPlace(model), C);
  const plain = trainedTable(n, C, (seed) => {
    const values = new Float32Array(n * C);
    fillNormal(values, 1, seed, 0);
    return values;
  });
  const encoder: EncoderFields = {
    encoder_reparameterization_type: fields.encoder_reparameterization_type ?? 'MLP',
    encoder_hidden_size: fields.encoder_hidden_size ?? C,
    encoder_num_layers: fields.encoder_num_layers ?? 2,
    encoder_dropout: fields.encoder_dropout ?? 0,
  };
  return openAdapter(model, pTuning(encoder, n, model, plain), table, notices);
}

const fileFields = {
  encoder_reparameterization_type: z.enum(['MLP', 'LSTM']).nullish(),
  encoder_hidden_size: z.int().min(1).nullish(),
  encoder_num_layers: z.int().min(1).nullish(),
  encoder_dropout: z.number().min(0).max(1).nullish(),
};

interface EncoderFields {
  readonly encoder_reparameterization_type: 'MLP' | 'LSTM';
  readonly encoder_hidden_size: number;
  readonly encoder_num_layers: number;
  readonly encoder_dropout: number;
}

function pTuning({ encoder_reparameterization_type, encoder_hidden_size, encoder_num_layers, encoder_dropout }: EncoderFields, n: number, model: TunableModel, table: VirtualTokenTable): Tuner {
  return new PromptLearningTuner('p-tuning', table, asEmbeddings, {
    peftType: 'P_TUNING',
    tag: 'p-tuning',
    method: 'P-tuning',
    virtualTokens: n,
    place: embeddingPlace(model),
    fields: () => ({ encoder_reparameterization_type, encoder_hidden_size, encoder_num_layers, encoder_dropout }),
  });
}
