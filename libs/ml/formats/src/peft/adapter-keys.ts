/**
 * Tensor names of a PEFT LoRA file. Inside the product a name is `<module path>.<parameter>` without wrapper prefix and without adapter name:
 * `model.layers.0.self_attn.q_proj.lora_A.weight`.
 */
const PREFIX = 'base_model.model.';
const PLAIN = /^(?<module>.+)\.(?<parameter>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector|lora_embedding_A|lora_embedding_B)$/;
/** With the adapter's name as a segment, as state dicts in memory have it, and DoRA's vector with the suffix older versions wrote. */
const NAMED = /^(?<module>.+)\.(?<matrix>lora_A|lora_B|lora_magnitude_vector|lora_embedding_A|lora_embedding_B)\.(?!weight$|bias$)(?<adapter>[^.]+)(?<suffix>\.weight|\.bias)?$/;

export interface AdapterKey {
  /** Dotted module path in the Hugging Face model. */
  readonly module: string;
  readonly parameter: 'lora_A.weight' | 'lora_B.weight' | 'lora_B.bias' | 'lora_magnitude_vector' | 'lora_embedding_A' | 'lora_embedding_B';
}

/** What a LoRA file may hold beside the low-rank factors: tables and biases trained whole, copies of the base's, trained rows of an embedding. */
const WHOLE = /^(?<name>.+\.(?:weight|bias|token_adapter\.trainable_tokens_delta))$/;
const WRAPPED = /\.modules_to_save(?:\.(?!weight$|bias$)[^.]+)?(?=\.(?:weight|bias)$)|(?<=\.trainable_tokens_delta)\.[^.]+$/;

/** @returns the tensor's plain name, without wrapper prefix and adapter name; undefined when it is none of these */
export function parseWholeKey(fileKey: string): string | undefined {
  const withoutPrefix = fileKey.startsWith(PREFIX) ? fileKey.slice(PREFIX.length) : fileKey;
  return WHOLE.exec(withoutPrefix.replace(WRAPPED, ''))?.groups?.['name'];
}

/** @returns the key in a file: prefix added */
export function toFileKey(name: string): string {
  return PREFIX + name;
}

/** Takes every spelling found in the wild to the plain name. @returns undefined when the tensor is not one of LoRA's own */
export function parseAdapterKey(fileKey: string): AdapterKey | undefined {
  const withoutPrefix = fileKey.startsWith(PREFIX) ? fileKey.slice(PREFIX.length) : fileKey;
  const named = NAMED.exec(withoutPrefix)?.groups;
  const plain = named === undefined ? withoutPrefix : `${named['module']}.${named['matrix']}${named['suffix'] ?? ''}`;
  const key = PLAIN.exec(plain.endsWith('.lora_magnitude_vector.weight') ? plain.slice(0, -'.weight'.length) : plain)?.groups;
  if (key === undefined) return undefined;
  return { module: key['module'] as string, parameter: key['parameter'] as AdapterKey['parameter'] };
}
