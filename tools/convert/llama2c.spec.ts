/**
 * Always: a tiny checkpoint made here. With TUNEFLEET_STORIES260K_DIR (a folder with stories260K.bin and tok512.bin): the published model.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFolder } from '@tunefleet/ml-formats';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { convertLlama2c } from './llama2c';
import { readLlama2cCheckpoint } from './llama2c-checkpoint';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'llama2c-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** hidden 4, MLP 6, 1 layer, 1 head of width 4, vocabulary 3, context 2; every float is its own position. */
function tinyCheckpoint(): Buffer {
  const floats = 3 * 4 + 4 + 4 * 16 + 4 + 3 * 24 + 4 + 2 * 4;
  return Buffer.concat([Buffer.from(Int32Array.from([4, 6, 1, 1, 1, 3, 2]).buffer), Buffer.from(Float32Array.from({ length: floats }, (_, index) => index).buffer)]);
}

describe('llama2.c checkpoints', () => {
  it('reads arrays in their order and puts query rows into half-rotation order', () => {
    const { shape, tensors } = readLlama2cCheckpoint(tinyCheckpoint());
    expect(shape).toMatchObject({ hiddenSize: 4, vocabularySize: 3, tiedEmbeddings: true });
    const firstOfRows = (name: string): number[] => {
      const tensor = tensors.find((each) => each.name === `model.layers.0.${name}.weight`)!;
      const values = new Float32Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.length / 4);
      return [...values].filter((_, index) => index % (tensor.shape.at(-1) ?? 1) === 0);
    };
    expect(firstOfRows('self_attn.q_proj')).toEqual([16, 24, 20, 28]);
    expect(firstOfRows('self_attn.v_proj')).toEqual([48, 52, 56, 60]);
    expect(firstOfRows('mlp.down_proj')).toEqual([108, 114, 120, 126]);
  });

  it('refuses a file whose size does not fit its header', () => {
    expect(() => readLlama2cCheckpoint(tinyCheckpoint().subarray(0, -4))).toThrow('too few for its header');
    expect(() => readLlama2cCheckpoint(Buffer.concat([tinyCheckpoint(), Buffer.alloc(8)]))).toThrow('8 bytes after its last array');
    expect(() => readLlama2cCheckpoint(Buffer.alloc(28, 0xff))).toThrow('no Llama shape');
  });

  const published = process.env['TUNEFLEET_STORIES260K_DIR'];
  (published === undefined ? it.skip : it)('converts stories260K (skipped unless TUNEFLEET_STORIES260K_DIR names its folder)', async () => {
    const source = published as string;
    await convertLlama2c({ checkpoint: join(source, 'stories260K.bin'), tokenizer: join(source, 'tok512.bin') }, folder);
    using weights = SafetensorsFolder.open(folder);
    expect(weights.names()).toHaveLength(2 + 5 * 9);
    expect(weights.entry('model.layers.4.self_attn.k_proj.weight').shape).toEqual([32, 64]);
    const tokenizer = await TextTokenizer.load(folder);
    // Ids of the reference's own encoder for this text.
    expect([...tokenizer.encode('Once upon a time', { addSpecialTokens: true })]).toEqual([1, 403, 407, 261, 378]);
    expect(tokenizer.decode(tokenizer.encode('Zoë said: 日本!'))).toBe('Zoë said: 日本!');
  });

  it('writes a tokenizer whose merges follow the scores', async () => {
    const pieces: [number, string][] = [[0, '<unk>'], [0, '\n<s>\n'], [0, '\n</s>\n'], [0, '<0x41>'], [-3, ' '], [-1, ' a'], [-4, 'a'], [-5, 'b'], [0, 'ab']];
    const parts = pieces.map(([score, text]) => {
      const head = Buffer.alloc(8);
      head.writeFloatLE(score, 0);
      head.writeInt32LE(Buffer.byteLength(text), 4);
      return Buffer.concat([head, Buffer.from(text)]);
    });
    writeFileSync(join(folder, 'tok.bin'), Buffer.concat([Buffer.alloc(4), ...parts]));
    const header = Int32Array.from([2, 1, 1, 1, 1, 9, 1]);
    const floats = 9 * 2 + 2 + 4 * 4 + 2 + 3 * 2 + 2 + 2;
    writeFileSync(join(folder, 'model.bin'), Buffer.concat([Buffer.from(header.buffer), Buffer.alloc(floats * 4)]));
    await convertLlama2c({ checkpoint: join(folder, 'model.bin'), tokenizer: join(folder, 'tok.bin') }, join(folder, 'out'));
    const { model } = JSON.parse(readFileSync(join(folder, 'out', 'tokenizer.json'), 'utf8')) as { model: { merges: unknown } };
    expect(model.merges).toEqual([['a', 'b'], ['\u2581', 'a']]);
  });
});
