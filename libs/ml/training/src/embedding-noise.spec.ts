/** NEFTune's noise: its bounds and moments are those of Transformers' hook, U(-a, a) with a = alpha / sqrt(L C); on every backend the same bits for the same key. */
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { withEmbeddingNoise } from './embedding-noise';

const [tokens, C, alpha] = [96, 128, 5];
/** One example of 64 tokens and one of 16 in a row, padded to 96. */
const lengths = Int32Array.from({ length: tokens }, (_, i) => (i < 64 ? 64 : i < 80 ? 16 : 0));

function noise(device: Device, key: readonly [number, number], dtype: 'f32' | 'bf16' = 'f32'): Float32Array {
  return device.scope(() => {
    const x = device.primitives.cast(device.tensor(new Float32Array(tokens * C), [tokens, C], 'f32'), dtype);
    const embed = withEmbeddingNoise({}, { alpha, lengths, key }).embed;
    return device.readFloats(embed?.(x, new Int32Array(tokens), 1) ?? x);
  });
}

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice({ backend });
  });

  test('uniform within alpha / sqrt(L C), with L of the example; none on padding', () => {
    const values = noise(device, [7, 3]);
    for (const [from, to, length] of [[0, 64, 64], [64, 80, 16]] as const) {
      const part = values.subarray(from * C, to * C);
      const bound = alpha / Math.sqrt(length * C);
      const largest = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largest).toBeLessThanOrEqual(bound * (1 + 1e-6));
      expect(largest).toBeGreaterThan(0.99 * bound);
      const mean = part.reduce((sum, value) => sum + value, 0) / part.length;
      const variance = part.reduce((sum, value) => sum + value * value, 0) / part.length - mean * mean;
      // Four standard errors of n uniform numbers.
      expect(Math.abs(mean)).toBeLessThan((4 * bound) / Math.sqrt(3 * part.length));
      expect(Math.abs(variance / (bound * bound / 3) - 1)).toBeLessThan(4 * Math.sqrt(0.8 / part.length));
    }
    expect(values.subarray(80 * C).every((value) => value === 0)).toBe(true);
  });

  test('a function of seed and step', () => {
    expect(noise(device, [7, 3])).toEqual(noise(device, [7, 3]));
    for (const other of [[8, 3], [7, 4], [7, 3 + 2 ** 32]] as const) expect(noise(device, other)).not.toEqual(noise(device, [7, 3]));
  });
});

test('bf16: the same noise, rounded once; it comes after what an adapter makes of the embeddings', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const wide = noise(device, [1, 1]);
  noise(device, [1, 1], 'bf16').forEach((value, i) => expect(Math.abs(value - (wide[i] ?? NaN))).toBeLessThanOrEqual(Math.abs(wide[i] ?? NaN) / 256));
  device.scope(() => {
    const x = device.tensor(new Float32Array(tokens * C), [tokens, C], 'f32');
    const raised = device.tensor(new Float32Array(tokens * C).fill(2), [tokens, C], 'f32');
    const { embed } = withEmbeddingNoise({ embed: () => raised }, { alpha, lengths, key: [1, 1] });
    const got = device.readFloats(embed?.(x, new Int32Array(tokens), 1) ?? x);
    expect(got.every((value, i) => Math.abs(value - 2 - (wide[i] ?? NaN)) < 1e-6)).toBe(true);
  });
});
