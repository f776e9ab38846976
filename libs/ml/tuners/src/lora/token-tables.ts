import { invariant } from '@tunefleet/foundation';
import type { ProjectionGroup } from '@tunefleet/ml-nn';
import { embeddingLora, replaceRows, type LoraUpdate, type OutputHead, type Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../tuner';
import type { LoraPlan } from './match';

/** What an adapter has of the token embedding: at most one of these. */
export interface EmbeddingParts {
  /** [V, C] f32, in place of the frozen table. */
  readonly table: Tensor | null;
  readonly lora: { readonly a: Tensor; readonly b: Tensor; readonly scale: number } | null;
  /** Rows [k, C] f32 in place of the table's at `indices`. */
  readonly tokens: { readonly rows: Tensor; readonly indices: readonly number[] } | null;
}

/** Token embeddings under an adapter. @param embedded [N, C]   @param scale what the model has put on the rows of its table */
export function embedWith({ table, lora, tokens }: EmbeddingParts, embedded: Tensor, ids: Int32Array, scale: number): Tensor {
  if (table) return replaceRows(embedded, table, ids, scale);
  if (lora) return embeddingLora(embedded, lora.a, lora.b, ids, lora.scale * scale);
  invariant(tokens, 'an embedding that nothing adapts');
  const place = new Map(tokens.indices.map((index, row) => [index, row]));
  return replaceRows(embedded, tokens.rows, Int32Array.from(ids, (id) => place.get(id) ?? -1), scale);
}

/** The output head as a group of one map, in the way of a block's projections. */
export function headGroup({ head, tables, vocabSize, hiddenSize }: BindableModel): ProjectionGroup | null {
  if (!head || !tables) return null;
  return { maps: [{ weight: head, bias: null }], members: [{ path: tables.head, inSize: hiddenSize, outSize: vocabSize, map: 0, row: 0 }] };
}

/** All groups of maps that can be adapted. */
export function groupsOf(model: BindableModel): readonly ProjectionGroup[] {
  const head = headGroup(model);
  return head ? [...model.projectionGroups, head] : model.projectionGroups;
}

/** Rows of the frozen embedding table, f32. */
export function frozenRows({ device, embeddings }: BindableModel, indices: readonly number[]): Tensor {
  const p = device.primitives;
  return device.scope(() => p.cast(p.gather(embeddings, device.tensor(Int32Array.from(indices), [indices.length], 'i32')), 'f32'));
}

/** [V, C] f32 on the host. */
export function frozenTable({ device, embeddings }: BindableModel, head: OutputHead | null): Float32Array {
  if (!head) return device.readFloats(embeddings);
  return device.scope(() => device.readFloats(head.layout === 'outIn' ? head.value : device.primitives.transpose(head.value, [1, 0])));
}

/** Trained rows in a head that is the embedding table: W + E (rows - W[indices]), with E [V, k] of zeros and ones; an update of rank k. */
export function headRowsUpdate(model: BindableModel, rows: Tensor, { indices }: NonNullable<LoraPlan['tokens']>): LoraUpdate {
  const { device, vocabSize } = model;
  const places = new Float32Array(indices.length * vocabSize);
  indices.forEach((index, row) => (places[row * vocabSize + index] = 1));
  const change = device.primitives.sub(rows, frozenRows(model, indices));
  return { a: change, b: device.tensor(places, [indices.length, vocabSize], 'f32'), scale: 1, map: 0, row: 0, dropout: null, gradientTo: { a: rows } };
}
