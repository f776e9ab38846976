import { assertNever, fillNormal, fillUniform, invariant } from '@tunefleet/foundation';
import { linear, relu, tanh, type Tensor } from '@tunefleet/ml-tensor';
import type { ParameterInfo, StartContext } from '../tuner';
import { linearOnHost } from './linear-on-host';

/** The table of a prompt-learning method, [n, width] f32: a row per virtual token. It is what is saved, whether it is trained itself or made by an encoder. */
export interface VirtualTokenTable {
  readonly parameters: readonly ParameterInfo[];
  initialValues(seed: number, start: StartContext): Float32Array;
  /** @param values one tensor per parameter   @returns [n, width] f32, differentiable */
  compute(values: readonly Tensor[]): Tensor;
  /** The same from host memory. @param values all parameters one after the other */
  computeOnHost(values: Float32Array): Float32Array;
}

/** A table that is trained itself. */
export function trainedTable(n: number, width: number, initialValues: VirtualTokenTable['initialValues']): VirtualTokenTable {
  return {
    parameters: [{ name: 'prompt_embeddings', shape: [n, width] }],
    initialValues,
    compute: ([table]) => {
      invariant(table, 'a table of virtual tokens was bound to nothing');
      return table;
    },
    computeOnHost: (values) => values,
  };
}

export interface EncoderShape {
  readonly n: number;
  /** Width of the embeddings, of each hidden layer, and of the table. */
  readonly sizes: readonly number[];
  readonly activation: 'tanh' | 'relu';
  /** What PEFT calls its linear maps: `transform` gives `transform.0`, `transform.2`, ... */
  readonly name: string;
  /** The last map starts at zero. */
  readonly zeroInitLast: boolean;
}

/** A table that an MLP makes of trained embeddings: linear maps with an activation between them. */
export function encodedTable({ n, sizes, activation, name, zeroInitLast }: EncoderShape): VirtualTokenTable {
  const maps = sizes.slice(1).map((outSize, index) => ({ name: `${name}.${2 * index}`, inSize: sizes[index] as number, outSize }));
  const parameters = [
    { name: 'embedding.weight', shape: [n, sizes[0] as number] },
    ...maps.flatMap((map) => [
      { name: `${map.name}.weight`, shape: [map.outSize, map.inSize] },
      { name: `${map.name}.bias`, shape: [map.outSize] },
    ]),
  ];
  return {
    parameters,
    initialValues(seed) {
      const parts = parameters.map(({ shape }) => new Float32Array(shape.reduce((product, size) => product * size, 1)));
      parts.forEach((part, stream) => {
        if (stream === 0) fillNormal(part, 1, seed, stream);
        else if (!zeroInitLast || stream < parts.length - 2) fillUniform(part, 1 / Math.sqrt(maps[(stream - 1) >> 1]?.inSize ?? NaN), seed, stream);
      });
      return joined(parts);
    },
    compute([embedding, ...rest]) {
      invariant(embedding && rest.length === 2 * maps.length, `an encoder of ${parameters.length} parameters was bound to ${rest.length + 1} tensors`);
      return maps.reduce((x, _map, index) => {
        const y = linear(x, rest[2 * index] as Tensor, rest[2 * index + 1] as Tensor);
        return index < maps.length - 1 ? activated(activation, y) : y;
      }, embedding);
    },
    computeOnHost(values) {
      const [embedding, ...rest] = cut(values, parameters) as [Float32Array, ...Float32Array[]];
      return maps.reduce((x, _map, index) => {
        const y = linearOnHost(x, rest[2 * index] as Float32Array, rest[2 * index + 1] as Float32Array);
        return index < maps.length - 1 ? y.map((value) => activatedOnHost(activation, value)) : y;
      }, embedding);
    },
  };
}

function activated(activation: EncoderShape['activation'], x: Tensor): Tensor {
  switch (activation) {
    case 'tanh':
      return tanh(x);
    case 'relu':
      return relu(x);
    default:
      return assertNever(activation, 'activation');
  }
}

function activatedOnHost(activation: EncoderShape['activation'], x: number): number {
  return activation === 'tanh' ? Math.tanh(x) : Math.max(0, x);
}

function cut(values: Float32Array, parameters: readonly ParameterInfo[]): Float32Array[] {
  let at = 0;
  return parameters.map(({ shape }) => values.subarray(at, (at += shape.reduce((product, size) => product * size, 1))));
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
