import { blockOf } from '../matching/blocks';
import { badField } from '../spec-refusal';
import type { ParameterInfo, TunableModel } from '../tuner';
import type { FullSpec } from './spec';

/** One of the model's tensors, under its name and in its layout in the checkpoint. */
export interface TrainedWeight extends ParameterInfo {
  readonly source: WeightSource;
}

/** Where a model holds a tensor. */
export type WeightSource =
  /** [out, in], or [in, out] as its projection says. */
  | { readonly type: 'map'; readonly path: string; readonly fanInFanOut: boolean }
  | { readonly type: 'map-bias'; readonly path: string }
  | { readonly type: 'norm'; readonly path: string; readonly part: 'weight' | 'bias' }
  | { readonly type: 'embeddings' | 'positions' | 'head' };

export interface FullPlan {
  /** Each once: of a head that is the embedding table there is the table. */
  readonly weights: readonly TrainedWeight[];
  /** First block that is trained. */
  readonly firstBlock: number;
  readonly trains: { readonly embeddings: boolean; readonly head: boolean };
}

/** As Transformers' Trainer has it: what is no matrix does not decay. */
const NO_DECAY: Pick<TrainedWeight, 'optimiser'> = { optimiser: { weightDecay: false } };

/** @throws TunefleetError `invalid_input` when the specification does not fit the model */
export function planFull(spec: FullSpec, model: TunableModel): FullPlan {
  const { tables, layers, hiddenSize: C, vocabSize: V, modelType } = model;
  if (!tables) throw badField('kind', `"full" is for decoders; a ${modelType} model is none`);
  const { last_blocks: last, train_norms: norms } = spec;
  if (last !== null && last > layers) throw badField('last_blocks', `is ${last}, but this ${modelType} model has ${layers} blocks`);
  const firstBlock = last === null ? 0 : layers - last;
  const trains = trainedTables(spec, tables.tied);
  const weights: TrainedWeight[] = [
    ...(trains.embeddings ? [{ name: `${tables.embedding}.weight`, shape: [V, C], source: { type: 'embeddings' } } as const] : []),
    ...(trains.embeddings && tables.positions ? [{ name: `${tables.positions.path}.weight`, shape: [tables.positions.rows, C], source: { type: 'positions' } } as const] : []),
    ...model.projections.filter(({ path }) => (blockOf(path, model) ?? -1) >= firstBlock).flatMap(mapWeights),
    ...(norms ? model.norms.filter(({ layer }) => layer >= firstBlock).flatMap(normWeights) : []),
    ...(trains.head && !tables.tied ? [{ name: `${tables.head}.weight`, shape: [V, C], source: { type: 'head' } } as const] : []),
  ];
  return { weights, firstBlock, trains };
}

function trainedTables({ last_blocks: last, train_embeddings, train_head }: FullSpec, tied: boolean): FullPlan['trains'] {
  const embeddings = train_embeddings ?? last === null;
  const head = train_head ?? (tied ? embeddings : true);
  if (tied && head && !embeddings) throw badField('train_head', 'the head of this model is its embedding table, which is not trained: leave train_head out');
  if (tied && embeddings && !head) throw badField('train_head', 'the head of this model is its embedding table, which is trained: leave train_head out, or set train_embeddings to false, too');
  return { embeddings, head };
}

function mapWeights({ path, inSize, outSize, fanInFanOut, biased }: TunableModel['projections'][number]): TrainedWeight[] {
  const weight: TrainedWeight = { name: `${path}.weight`, shape: fanInFanOut ? [inSize, outSize] : [outSize, inSize], source: { type: 'map', path, fanInFanOut: fanInFanOut === true } };
  const bias: TrainedWeight = { name: `${path}.bias`, shape: [outSize], source: { type: 'map-bias', path }, ...NO_DECAY };
  return biased ? [weight, bias] : [weight];
}

function normWeights({ path, size, biased }: TunableModel['norms'][number]): TrainedWeight[] {
  const part = (name: 'weight' | 'bias'): TrainedWeight => ({ name: `${path}.${name}`, shape: [size], source: { type: 'norm', path, part: name }, ...NO_DECAY });
  return [part('weight'), ...(biased ? [part('bias')] : [])];
}
