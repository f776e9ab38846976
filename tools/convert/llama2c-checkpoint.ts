import { TunefleetError } from '@tunefleet/foundation';
import { interleavedToHalfRows, type TensorInMemory } from '@tunefleet/ml-formats';

export interface Llama2cShape {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly tiedEmbeddings: boolean;
}

const HEADER_BYTES = 7 * 4;

/**
 * Reads a llama2.c checkpoint of the first ("legacy") layout: seven int32, then float32 arrays, each kind for all layers in a row.
 * A negative vocabulary size means that the output head is stored apart.
 * @see https://github.com/karpathy/llama2.c `export.py`, `legacy_export`
 * @throws TunefleetError `incompatible_artifact` when the size does not fit the header
 */
export function readLlama2cCheckpoint(file: Uint8Array): { readonly shape: Llama2cShape; readonly tensors: TensorInMemory[] } {
  if (file.length < HEADER_BYTES) throw damaged(`has ${file.length} bytes, too few for a header`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [hiddenSize, intermediateSize, layers, heads, keyValueHeads, vocabulary, contextLength] = Array.from({ length: 7 }, (_, index) => view.getInt32(index * 4, true)) as [number, number, number, number, number, number, number];
  const shape: Llama2cShape = { hiddenSize, intermediateSize, layers, heads, keyValueHeads, vocabularySize: Math.abs(vocabulary), contextLength, tiedEmbeddings: vocabulary > 0 };
  checkShape(shape);
  const headDim = hiddenSize / heads;
  const keyValueSize = headDim * keyValueHeads;
  let position = HEADER_BYTES;
  const take = (elements: number): Float32Array => {
    const bytes = elements * 4;
    if (position + bytes > file.length) throw damaged(`has ${file.length} bytes, too few for its header's sizes`);
    // A Buffer's own `slice` would not copy, and the offset need not be aligned.
    const values = new Float32Array(Uint8Array.prototype.slice.call(file, position, position + bytes).buffer);
    position += bytes;
    return values;
  };
  const tensors: TensorInMemory[] = [];
  const add = (name: string, dims: number[], values: Float32Array): void => void tensors.push({ name, dtype: 'F32', shape: dims, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) });
  const perLayer = (name: string, dims: number[], change: (values: Float32Array) => Float32Array = (values) => values): void => {
    const elements = dims.reduce((product, size) => product * size, 1);
    for (let layer = 0; layer < layers; layer++) add(`model.layers.${layer}.${name}.weight`, dims, change(take(elements)));
  };
  add('model.embed_tokens.weight', [shape.vocabularySize, hiddenSize], take(shape.vocabularySize * hiddenSize));
  perLayer('input_layernorm', [hiddenSize]);
  perLayer('self_attn.q_proj', [hiddenSize, hiddenSize], (rows) => interleavedToHalfRows(rows, heads, headDim));
  perLayer('self_attn.k_proj', [keyValueSize, hiddenSize], (rows) => interleavedToHalfRows(rows, keyValueHeads, headDim));
  perLayer('self_attn.v_proj', [keyValueSize, hiddenSize]);
  perLayer('self_attn.o_proj', [hiddenSize, hiddenSize]);
  perLayer('post_attention_layernorm', [hiddenSize]);
  perLayer('mlp.gate_proj', [intermediateSize, hiddenSize]);
  perLayer('mlp.down_proj', [hiddenSize, intermediateSize]);
  perLayer('mlp.up_proj', [intermediateSize, hiddenSize]);
  add('model.norm.weight', [hiddenSize], take(hiddenSize));
  take(contextLength * headDim); // two RoPE tables, [context, head width / 2] each, computed by every reader
  if (!shape.tiedEmbeddings) add('lm_head.weight', [shape.vocabularySize, hiddenSize], take(shape.vocabularySize * hiddenSize));
  if (position !== file.length) throw damaged(`has ${file.length - position} bytes after its last array`);
  return { shape, tensors };
}

function checkShape({ hiddenSize, intermediateSize, layers, heads, keyValueHeads, vocabularySize, contextLength }: Llama2cShape): void {
  const sizes = [hiddenSize, intermediateSize, layers, heads, keyValueHeads, vocabularySize, contextLength];
  const sane = sizes.every((size) => size > 0 && size < 1 << 24) && hiddenSize % (2 * heads) === 0 && heads % keyValueHeads === 0;
  if (!sane) throw damaged(`has the header ${sizes.join(', ')}, which is no Llama shape`);
}

function damaged(what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the llama2.c checkpoint ${what}; only the first (legacy) float32 layout can be read`);
}
