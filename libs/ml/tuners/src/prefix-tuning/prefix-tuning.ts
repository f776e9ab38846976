import { fillNormal } from '@tunefleet/foundation';
import type { AdapterFiles } from '@tunefleet/ml-formats';
import { z } from 'zod';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import type { BindableModel, TunableModel, Tuner } from '../tuner';
import { readPromptFile } from '../virtual-tokens/adapter-file';
import { keyValuePlace } from '../virtual-tokens/place';
import { asKeysValues, PromptLearningTuner } from '../virtual-tokens/prompt-learning-tuner';
import { encodedTable, trainedTable, type VirtualTokenTable } from '../virtual-tokens/table';
import type { PrefixTuningSpec } from './spec';

export function createPrefixTuning(spec: PrefixTuningSpec, model: TunableModel): Tuner {
  const { num_virtual_tokens: n, prefix_projection, encoder_hidden_size, init_weights } = spec;
  if (!prefix_projection) return prefixTuning(spec, model, plainTable(spec, model));
  const { tokenDim, layers } = keyValuePlace(model);
  const sizes = [tokenDim, encoder_hidden_size ?? tokenDim, 2 * layers * tokenDim];
  return prefixTuning(spec, model, encodedTable({ n, sizes, activation: 'tanh', name: 'transform', zeroInitLast: init_weights === 'zero' }));
}

/** A PEFT folder of PREFIX_TUNING. With projection it holds what the MLP made: the table is what can be trained further. @throws TunefleetError `incompatible_artifact` */
export function loadPrefixTuning(model: BindableModel, files: AdapterFiles): LoadedAdapter {
  const place = keyValuePlace(model);
  const { fields, virtualTokens, table, notices } = readPromptFile(files, fileFields, model, place, 2 * place.layers * place.tokenDim);
  const spec: PrefixTuningSpec = {
    kind: 'prefix-tuning',
    num_virtual_tokens: virtualTokens,
    prefix_projection: fields.prefix_projection ?? false,
    encoder_hidden_size: fields.encoder_hidden_size ?? null,
    init_weights: null,
  };
  return openAdapter(model, prefixTuning(spec, model, plainTable(spec, model)), table, notices);
}

const fileFields = {
  prefix_projection: z.boolean().nullish(),
  encoder_hidden_size: z.int().min(1).nullish(),
  init_weights: z.string().nullish(),
};

function plainTable({ num_virtual_tokens: n, init_weights }: PrefixTuningSpec, model: TunableModel): VirtualTokenTable {
  const { tokenDim, layers } = keyValuePlace(model);
  const width = 2 * layers * tokenDim;
  return trainedTable(n, width, (seed) => {
    const values = new Float32Array(n * width);
    if (init_weights !== 'zero') fillNormal(values, 1, seed, 0);
    return values;
  });
}

function prefixTuning({ num_virtual_tokens: n, prefix_projection, encoder_hidden_size }: PrefixTuningSpec, model: TunableModel, table: VirtualTokenTable): Tuner {
  const place = keyValuePlace(model);
  return new PromptLearningTuner('prefix-tuning', table, asKeysValues, {
    peftType: 'PREFIX_TUNING',
    tag: 'prefix-tuning',
    method: 'Prefix tuning',
    virtualTokens: n,
    place,
    fields: () => ({ prefix_projection, encoder_hidden_size: encoder_hidden_size ?? place.tokenDim }),
  });
}
