import { parseArgs } from 'node:util';
import { TunefleetError } from '@tunefleet/foundation';
import { generate, PrefixCache, samplingSchema, stopTokens } from '@tunefleet/ml-generation';
import { precisionText } from '@tunefleet/ml-jobs';
import { renderPrompt, type TextTokenizer } from '@tunefleet/ml-tokenizers';
import { ACTIVE_USAGE, activeOptions, openLocalModel } from './local-engine';

const USAGE = `usage: tunefleet generate --prompt <text> [--model <owner/name or folder>] [--adapter <folder> ...] [options]
       tunefleet adapters generate <folder or id or ft: name> ... --prompt <text> [options]

  --model <name>       base model; may be left out where the first adapter names its own
  --revision <name>    branch, tag or commit of the model
${ACTIVE_USAGE}  --system <text>      system message
  --raw                continue the prompt as it is, without the chat template
  --max-tokens <n>     default 256
  --temperature <t>    0 (default): always the likeliest token; up to 2
  --top-p <p>          default 1
  --seed <n>           default 0
  --dtype <d>          auto (default), f32 or bf16
`;

/** Streams an answer to stdout; how fast it was goes to stderr. */
export async function generateCommand(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      ...activeOptions,
      prompt: { type: 'string' },
      system: { type: 'string' },
      raw: { type: 'boolean', default: false },
      'max-tokens': { type: 'string', default: '256' },
      temperature: { type: 'string', default: '0' },
      'top-p': { type: 'string', default: '1' },
      seed: { type: 'string', default: '0' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  if (values.prompt === undefined) throw new TunefleetError('invalid_input', `--prompt is missing\n${USAGE}`);
  const sampling = parseSampling(values);
  const maxTokens = wholeNumber('max-tokens', values['max-tokens']);
  const { opened, active } = await openLocalModel(values);
  const { model, tokenizer, folder, config } = opened;
  const prompt = values.raw ? tokenizer.encode(values.prompt, { addSpecialTokens: true }) : chatPrompt(tokenizer, values.prompt, values.system);
  using cache = new PrefixCache(model, active.hook);
  const decoder = tokenizer.streamDecoder({ skipSpecialTokens: true });
  const started = performance.now();
  let firstMs = 0;
  const { ids, finishReason } = await generate(cache, prompt, {
    maxTokens,
    sampling,
    stopIds: await stopTokens(tokenizer, folder, config),
    onToken: (id) => {
      firstMs ||= performance.now() - started;
      process.stdout.write(decoder.push(id));
    },
  });
  process.stdout.write(`${decoder.end()}\n`);
  const seconds = (performance.now() - started - firstMs) / 1000;
  const speed = ids.length > 1 && seconds > 0 ? `, ${((ids.length - 1) / seconds).toFixed(1)} tokens/s` : '';
  process.stderr.write(`${prompt.length} prompt tokens in ${(firstMs / 1000).toFixed(2)} s, ${ids.length} new tokens${speed}, ended by ${finishReason}, ${precisionText(opened)}\n`);
}

function chatPrompt(tokenizer: TextTokenizer, prompt: string, system: string | undefined): Int32Array {
  return renderPrompt(tokenizer, [...(system === undefined ? [] : [{ role: 'system', content: system }]), { role: 'user', content: prompt }]);
}

function parseSampling(values: { readonly temperature: string; readonly 'top-p': string; readonly seed: string }): ReturnType<typeof samplingSchema.parse> {
  const parsed = samplingSchema.safeParse({ temperature: Number(values.temperature), topP: Number(values['top-p']), seed: Number(values.seed) });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const option = issue?.path[0] === 'topP' ? 'top-p' : String(issue?.path[0]);
  throw new TunefleetError('invalid_input', `--${option}: ${issue?.message ?? 'not valid'}`);
}

function wholeNumber(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1) return value;
  throw new TunefleetError('invalid_input', `--${option} is "${text}"; it must be a whole number from 1`);
}
