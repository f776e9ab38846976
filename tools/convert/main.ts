/** `llama2c <checkpoint.bin> <tokenizer.bin> <folder>` or `gguf <file.gguf> <folder> [--f32]`: writes a Hugging Face model folder. */
import { mkdir } from 'node:fs/promises';
import { errorMessage } from '@tunefleet/foundation';
import { convertGgufToFolder } from '@tunefleet/ml-formats';
import { convertLlama2c } from './llama2c';

const USAGE = 'usage: convert llama2c <checkpoint.bin> <tokenizer.bin> <folder>\n       convert gguf <file.gguf> <folder> [--f32]';

async function main([kind, ...args]: readonly string[]): Promise<string> {
  const [first, second, third] = args;
  if (kind === 'llama2c' && first !== undefined && second !== undefined && third !== undefined) {
    await convertLlama2c({ checkpoint: first, tokenizer: second }, third);
    return third;
  }
  if (kind === 'gguf' && first !== undefined && second !== undefined) {
    await mkdir(second, { recursive: true });
    await convertGgufToFolder(first, second, { dtype: third === '--f32' ? 'F32' : 'BF16' });
    return second;
  }
  throw new Error(USAGE);
}

try {
  console.log(`wrote ${await main(process.argv.slice(2))}`);
} catch (error) {
  console.error(errorMessage(error));
  process.exitCode = 1;
}
