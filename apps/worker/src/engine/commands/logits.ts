import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { encodeSafetensors, type TensorInMemory } from '@tunefleet/ml-formats';
import { sequenceLogits } from '@tunefleet/ml-generation';
import { precisionText, writeDurably } from '@tunefleet/ml-jobs';
import { ACTIVE_USAGE, activeOptions, openLocalModel } from './local-engine';

const USAGE = `usage: tunefleet logits --text-file <file> --out <file.safetensors> [--model <owner/name or folder>] [--adapter <folder> ...] [--dtype auto|f32|bf16]

Writes, for every line i of the text file, ids.<i> [T] int32 and logits.<i> [T, V] float32.

${ACTIVE_USAGE}`;

/** The file is made in memory. */
const OUTPUT_BYTES_MAX = 1 << 30;

export async function logitsCommand(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { ...activeOptions, 'text-file': { type: 'string' }, out: { type: 'string' }, help: { type: 'boolean', short: 'h', default: false } },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const { 'text-file': textFile, out } = values;
  if (textFile === undefined || out === undefined) throw new TunefleetError('invalid_input', `--text-file and --out are needed\n${USAGE}`);
  const texts = await readTexts(textFile);
  const { opened, active } = await openLocalModel(values);
  const { model, tokenizer } = opened;
  const tensors: TensorInMemory[] = [];
  let bytes = 0;
  for (const [index, text] of texts.entries()) {
    const ids = tokenizer.encode(text, { addSpecialTokens: true });
    bytes += ids.length * model.vocabSize * 4;
    if (bytes > OUTPUT_BYTES_MAX) throw new TunefleetError('invalid_input', `the first ${index + 1} texts give more than ${OUTPUT_BYTES_MAX} bytes of logits; use fewer or shorter texts`);
    const logits = sequenceLogits(model, ids, active.hook);
    tensors.push({ name: `ids.${index}`, dtype: 'I32', shape: [ids.length], data: bytesOf(ids) });
    tensors.push({ name: `logits.${index}`, dtype: 'F32', shape: [ids.length, model.vocabSize], data: bytesOf(logits) });
  }
  await writeDurably(out, encodeSafetensors(tensors));
  process.stderr.write(`wrote the logits of ${texts.length} texts, computed in ${precisionText(opened)}, to ${out}\n`);
}

async function readTexts(path: string): Promise<string[]> {
  const content = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new TunefleetError('invalid_input', `--text-file cannot be read: ${errorMessage(error)}`, { cause: error });
  });
  const texts = content.split(/\r?\n/).filter((line) => line !== '');
  if (texts.length === 0) throw new TunefleetError('invalid_input', `${path} has no text; write one text per line`);
  return texts;
}

function bytesOf({ buffer, byteOffset, byteLength }: Int32Array | Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
