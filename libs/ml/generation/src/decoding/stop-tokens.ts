import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { renderConversation, type TextTokenizer } from '@tunefleet/ml-tokenizers';
import { z } from 'zod';

const eosSchema = z.object({ eos_token_id: z.union([z.int(), z.array(z.int())]).nullish() });

/**
 * Every token that ends an answer: EOS by the tokenizer, by config.json and by generation_config.json, and the token with which the chat
 * template ends an assistant turn (what a tuned model has learned to write).
 * @param config content of config.json
 * @throws TunefleetError `incompatible_artifact` when generation_config.json is not JSON
 */
export async function stopTokens(tokenizer: TextTokenizer, folder: string, config: unknown): Promise<ReadonlySet<number>> {
  const generationConfig = await readGenerationConfig(join(folder, 'generation_config.json'));
  const ids = [...eosOf(config), ...eosOf(generationConfig), endOfTurn(tokenizer), tokenizer.special.eos];
  return new Set(ids.filter((id) => id !== null));
}

function eosOf(config: unknown): number[] {
  const parsed = eosSchema.safeParse(config);
  const eos = parsed.success ? (parsed.data.eos_token_id ?? []) : [];
  return Array.isArray(eos) ? eos : [eos];
}

function endOfTurn(tokenizer: TextTokenizer): number | null {
  if (tokenizer.chatTemplate === null) return null;
  const { labels } = renderConversation(tokenizer, [
    { role: 'user', content: 'a' },
    { role: 'assistant', content: 'b' },
  ]);
  const last = labels.findLast((label) => label >= 0);
  return last !== undefined && tokenizer.specialIds.has(last) ? last : null;
}

async function readGenerationConfig(path: string): Promise<unknown> {
  if (!existsSync(path)) return null;
  try {
    return JSON.parse(await readFile(path, 'utf8')) as unknown;
  } catch (error) {
    throw new TunefleetError('incompatible_artifact', `${path} is not JSON: ${errorMessage(error)}`, { reason: 'bad_config', cause: error });
  }
}
