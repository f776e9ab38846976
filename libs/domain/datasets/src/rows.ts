/** The row formats of training and evaluation files, as the OpenAI API defines them, for text models; plain text is ours. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';

export const MESSAGES_MAX = 2048;
const TEXT_MAX = 4_000_000;

/** An issue with one of our rule ids; schemas' own issues get theirs in `problems.ts`. */
function rule(context: z.RefinementCtx, id: string, path: (string | number)[], message: string): void {
  context.addIssue({ code: 'custom', path, message, params: { rule: id } });
}

const textPart = z.object({
  type: z.literal('text', { error: 'only text parts are supported: this service trains text models; remove the part or write its content as text' }),
  text: z.string().max(TEXT_MAX),
});

/** A text, or a list of text parts, which is joined. */
const contentSchema = z
  .union([z.string().max(TEXT_MAX), z.array(textPart).max(256)], { error: 'content must be a text or a list of {"type": "text", "text": ...} parts' })
  .transform((content) => (typeof content === 'string' ? content : content.map(({ text }) => text).join('')));

const toolCallSchema = z.object({
  id: z.string().max(200),
  type: z.literal('function'),
  function: z.object({ name: z.string().min(1).max(200), arguments: z.string().max(TEXT_MAX) }),
});

/** `developer` is the newer name of `system`; templates know the older one. */
const roleSchema = z
  .enum(['system', 'developer', 'user', 'assistant', 'tool'], { error: ({ input }) => `role is ${JSON.stringify(input)?.slice(0, 60)}; it must be system, developer, user, assistant or tool` })
  .transform((role) => (role === 'developer' ? 'system' : role));

const messageSchema = z.object({
  role: roleSchema,
  content: contentSchema.nullish(),
  name: z.string().max(64).optional(),
  tool_calls: z.array(toolCallSchema).min(1).max(128).optional(),
  tool_call_id: z.string().max(200).optional(),
  weight: z.union([z.literal(0), z.literal(1)], { error: 'weight must be 0 (do not learn this turn) or 1' }).optional(),
});
export type DatasetMessage = z.infer<typeof messageSchema>;

export const chatRowSchema = z
  .object({
    messages: z.array(messageSchema, { error: 'messages must be a list of {"role", "content"} objects' }).min(1, { error: 'messages is empty; a conversation needs a user and an assistant message' }).max(MESSAGES_MAX),
    tools: z.array(z.record(z.string(), z.unknown())).max(128).optional(),
    parallel_tool_calls: z.boolean().optional(),
  })
  .superRefine(({ messages }, context) => {
    for (const [index, message] of messages.entries()) checkMessage(message, index, context);
    const last = messages.length - 1;
    if (last < 0) return; // reported by the list's own rule
    if (messages[last]?.role !== 'assistant') rule(context, 'last_not_assistant', ['messages', last, 'role'], `the last message is from "${messages[last]?.role}"; it must be the assistant's, the answer to learn`);
    const answers = messages.filter(({ role }) => role === 'assistant');
    if (answers.length > 0 && answers.every(({ weight }) => weight === 0)) rule(context, 'nothing_to_learn', ['messages'], 'every assistant message has weight 0; give at least one weight 1, or remove the row');
  });
export type ChatRow = z.infer<typeof chatRowSchema>;

function checkMessage({ role, content, tool_calls: calls, tool_call_id: callId, weight }: DatasetMessage, index: number, context: z.RefinementCtx, list: (string | number)[] = ['messages']): void {
  const path = [...list, index];
  if (role === 'assistant') {
    if (calls === undefined && (content ?? '').trim() === '') rule(context, 'empty_assistant', [...path, 'content'], 'the assistant message is empty; write the answer to learn, or remove the row');
    return;
  }
  if (content === null || content === undefined) rule(context, 'missing_content', [...path, 'content'], `the ${role} message has no content; write a text`);
  if (weight !== undefined) rule(context, 'weight_on_other_role', [...path, 'weight'], `weight stands on a ${role} message; only assistant messages are learned, so only they take a weight`);
  if (calls !== undefined) rule(context, 'tool_calls_on_other_role', [...path, 'tool_calls'], `tool_calls stand on a ${role} message; only the assistant calls tools`);
  if (role === 'tool' && callId === undefined) rule(context, 'missing_tool_call_id', [...path, 'tool_call_id'], 'a tool message needs the tool_call_id it answers');
}

export const completionRowSchema = z
  .object({
    prompt: z.string({ error: 'prompt must be a text' }).max(TEXT_MAX),
    completion: z.string({ error: 'completion must be a text' }).max(TEXT_MAX),
  })
  .superRefine(({ completion }, context) => {
    if (completion.trim() === '') rule(context, 'empty_completion', ['completion'], 'completion is empty; write the text to learn, or remove the row');
  });
export type CompletionRow = z.infer<typeof completionRowSchema>;

const answerSchema = z
  .array(messageSchema, { error: 'must be a list with one assistant message' })
  .superRefine((answer, context) => {
    if (answer.length !== 1) return rule(context, 'not_one_answer', [], `has ${answer.length} messages; write exactly one, the assistant's`);
    const [message] = answer as [DatasetMessage];
    if (message.role !== 'assistant') return rule(context, 'answer_not_assistant', [0, 'role'], `is from "${message.role}"; an answer is the assistant's`);
    if (message.weight === 0) rule(context, 'weight_on_answer', [0, 'weight'], 'weight 0 would leave nothing to compare; remove the weight');
    checkMessage(message, 0, context, []);
  });

export const preferenceRowSchema = z
  .object({
    input: z.object(
      {
        messages: z.array(messageSchema, { error: 'messages must be a list of {"role", "content"} objects' }).min(1, { error: 'messages is empty; write the conversation that the two answers answer' }).max(MESSAGES_MAX),
        tools: z.array(z.record(z.string(), z.unknown())).max(128).optional(),
        parallel_tool_calls: z.boolean().optional(),
      },
      { error: 'input must be an object with "messages"' },
    ),
    preferred_output: answerSchema,
    non_preferred_output: answerSchema,
  })
  .superRefine(({ input: { messages }, preferred_output: preferred, non_preferred_output: other }, context) => {
    for (const [index, message] of messages.entries()) checkMessage(message, index, context, ['input', 'messages']);
    const last = messages.length - 1;
    if (messages[last]?.role === 'assistant') rule(context, 'input_ends_with_assistant', ['input', 'messages', last, 'role'], 'the input ends with an assistant message; end it with what the two answers answer');
    if (isDeepStrictEqual(preferred, other)) rule(context, 'same_outputs', ['non_preferred_output'], 'both outputs are the same; there is nothing to prefer');
  });
export type PreferenceRow = z.infer<typeof preferenceRowSchema>;

export const textRowSchema = z
  .object({ text: z.string({ error: 'text must be a text' }).max(TEXT_MAX) })
  .superRefine(({ text }, context) => {
    if (text.trim() === '') rule(context, 'empty_text', ['text'], 'text is empty; write the document, or remove the row');
  });
export type TextRow = z.infer<typeof textRowSchema>;

export type DatasetFormat = 'chat' | 'completion' | 'preference' | 'text';
export type DatasetRow = ({ readonly format: 'chat' } & ChatRow) | ({ readonly format: 'completion' } & CompletionRow);
export type PreferenceDatasetRow = { readonly format: 'preference' } & PreferenceRow;
export type TextDatasetRow = { readonly format: 'text' } & TextRow;
export type AnyDatasetRow = DatasetRow | PreferenceDatasetRow | TextDatasetRow;

/** What an evaluation compares an answer with: the last assistant message, or the completion. */
export function referenceOf(row: DatasetRow): string {
  return row.format === 'chat' ? (row.messages.at(-1)?.content ?? '') : row.completion;
}
