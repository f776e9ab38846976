import { isDeepStrictEqual } from 'node:util';

type Json = Record<string, unknown>;

/**
 * Rewrites components of a `tokenizer.json` that the JavaScript library splits differently from the reference library into equivalent
 * ones that both split alike. `Digits` means every Unicode number in the reference, ASCII digits only in the JavaScript port.
 * @returns a changed copy, or the same object when nothing had to change
 */
export function portableTokenizer(tokenizer: Json): Json {
  const preTokenizer = rewrite(tokenizer['pre_tokenizer']);
  return isDeepStrictEqual(preTokenizer, tokenizer['pre_tokenizer']) ? tokenizer : { ...tokenizer, pre_tokenizer: preTokenizer };
}

function rewrite(component: unknown): unknown {
  if (!isRecord(component)) return component;
  if (component['type'] === 'Sequence' && Array.isArray(component['pretokenizers'])) {
    return { ...component, pretokenizers: component['pretokenizers'].map(rewrite) };
  }
  if (component['type'] !== 'Digits') return component;
  const pattern = component['individual_digits'] === true ? '\\p{N}' : '\\p{N}+';
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

/** True when tokens are bytes, so that texts may be encoded piece by piece and joined. */
export function isByteLevel(tokenizer: Json): boolean {
  const decoder = tokenizer['decoder'];
  if (!isRecord(decoder)) return false;
  const parts = decoder['type'] === 'Sequence' && Array.isArray(decoder['decoders']) ? decoder['decoders'] : [decoder];
  return tokenizer['normalizer'] == null && parts.some((part) => isRecord(part) && part['type'] === 'ByteLevel');
}

export const isRecord = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
