import type { ParameterInfo } from '../tuner';
import type { LoraPlan } from './match';
import type { LoraSpec } from './spec';

/** One trained tensor, and how its file holds it. */
export interface LoraParameter extends ParameterInfo {
  /** The file holds the transposed matrix: B is turned so that nothing has to be turned while it trains. */
  readonly turned: boolean;
}

type Parameterising = Pick<LoraSpec, 'use_dora' | 'lora_bias' | 'loraplus_lr_ratio' | 'loraplus_lr_embedding'>;

/** Trained tensors: of every target, one target after the other, then of the token tables. */
export function loraParameters(spec: Parameterising, plan: LoraPlan): LoraParameter[] {
  const parameters = shapesOf(spec, plan);
  const { loraplus_lr_ratio: ratio, loraplus_lr_embedding: embeddingRate } = spec;
  return ratio === null ? parameters : parameters.map((parameter) => ({ ...parameter, ...loraPlus(parameter, ratio, embeddingRate) }));
}

/**
 * LoRA+: B and vectors learn faster than A, by a ratio; low-rank embeddings have a rate of their own.
 * @see Hayou, Ghosh and Yu 2024, arXiv:2402.12354; huggingface/peft `optimizers/loraplus.py`
 */
function loraPlus({ name, shape }: ParameterInfo, ratio: number, embeddingRate: number): Pick<ParameterInfo, 'optimiser'> {
  if (name.includes('.lora_embedding_')) return { optimiser: { learningRate: embeddingRate } };
  if (!name.includes('.lora_B.') && shape.length > 1) return {};
  return { optimiser: { rateFactor: ratio, ...(name.endsWith('.bias') ? { weightDecay: false } : {}) } };
}

function shapesOf({ use_dora, lora_bias }: Parameterising, { targets, biases, embedding, saved, norms, tokens }: LoraPlan): LoraParameter[] {
  return [
    ...targets.flatMap(({ path, rank, inSize, outSize }) => [
      { name: aOf(path), shape: [rank, inSize], turned: false },
      { name: bOf(path), shape: [rank, outSize], turned: true },
      ...(lora_bias ? [{ name: bBiasOf(path), shape: [outSize], turned: false }] : []),
      ...(use_dora ? [{ name: magnitudeOf(path), shape: [outSize], turned: false }] : []),
    ]),
    ...biases.map((bias) => ({ name: biasOf(bias), shape: [bias.size], turned: false })),
    ...(embedding
      ? [
          { name: embeddingAOf(embedding.path), shape: [embedding.rank, embedding.inSize], turned: false },
          { name: embeddingBOf(embedding.path), shape: [embedding.rank, embedding.outSize], turned: true },
        ]
      : []),
    ...saved.map(({ path, shape }) => ({ name: savedOf(path), shape, turned: false })),
    ...norms.flatMap(({ path, size, biased }) => [savedOf(path), ...(biased ? [savedBiasOf(path)] : [])].map((name) => ({ name, shape: [size], turned: false }))),
    ...(tokens ? [{ name: tokensOf(tokens.path), shape: [tokens.indices.length, tokens.width], turned: false }] : []),
  ];
}

export const aOf = (path: string): string => `${path}.lora_A.weight`;
export const bOf = (path: string): string => `${path}.lora_B.weight`;
export const bBiasOf = (path: string): string => `${path}.lora_B.bias`;
export const biasOf = ({ path, adapted }: { readonly path: string; readonly adapted: boolean }): string => `${path}.${adapted ? 'base_layer.' : ''}bias`;
export const magnitudeOf = (path: string): string => `${path}.lora_magnitude_vector`;
export const embeddingAOf = (path: string): string => `${path}.lora_embedding_A`;
export const embeddingBOf = (path: string): string => `${path}.lora_embedding_B`;
export const savedOf = (path: string): string => `${path}.weight`;
export const savedBiasOf = (path: string): string => `${path}.bias`;
export const tokensOf = (path: string): string => `${path}.token_adapter.trainable_tokens_delta`;

export function loraParameterCount(spec: Parameterising, plan: LoraPlan): number {
  return loraParameters(spec, plan).reduce((sum, parameter) => sum + sizeOf(parameter), 0);
}

export function sizeOf({ shape }: ParameterInfo): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Where each parameter lies in the flat vector. */
export function placesOf<P extends ParameterInfo>(parameters: readonly P[]): ReadonlyMap<string, { readonly parameter: P; readonly offset: number }> {
  let offset = 0;
  return new Map(
    parameters.map((parameter) => {
      const place = { parameter, offset };
      offset += sizeOf(parameter);
      return [parameter.name, place];
    }),
  );
}

/** @param x [rows, columns]    @returns [columns, rows] */
export function transposed(x: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(x.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) result[column * rows + row] = x[row * columns + column] as number;
  return result;
}
