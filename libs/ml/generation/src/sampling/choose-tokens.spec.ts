/** Choosing on the device against `sampleToken` on the host. */
import { uniformAt } from '@tunefleet/foundation';
import { openDevice } from '@tunefleet/ml-tensor';
import { chooseTokens } from './choose-tokens';
import { sampleToken, samplingSchema } from './sampler';

const [rows, V] = [3, 300];

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  test.each([
    ['greedy', {}],
    ['temperature', { temperature: 1 }],
    ['top-k', { temperature: 1.5, topK: 20 }],
    ['top-k of everything', { temperature: 1.5, topK: V }],
    ['top-k of more than there is', { temperature: 1.5, topK: 2 * V }],
    ['top-p', { temperature: 0.8, topP: 0.7 }],
    ['top-k with top-p', { temperature: 1, topK: 40, topP: 0.5 }],
  ])('%s is as on the host', async (_, given) => {
    const device = await openDevice({ backend });
    const sampling = samplingSchema.parse({ seed: 5, ...given });
    // Rounded, so that there are ties.
    const values = Float32Array.from({ length: rows * V }, (_, i) => Math.round(20 * uniformAt(1, 2, i)) / 4);
    using logits = device.tensor(values.slice(), [rows, V], 'f32');
    const handles = device.memory.liveHandles - device.cachedScalars;
    for (let position = 0; position < 20; position++) {
      const expected = Array.from({ length: rows }, (_, row) => sampleToken(values.subarray(row * V, (row + 1) * V), sampling, 0, position));
      expect([...chooseTokens(logits, position, sampling)]).toEqual(expected);
    }
    expect(device.memory.liveHandles - device.cachedScalars).toBe(handles);
  });

  test.each([
    ['NaN', NaN],
    ['infinite', Infinity],
    ['minus infinite', -Infinity],
  ])('a row of %s logits is refused', async (_, value) => {
    const device = await openDevice({ backend });
    using logits = device.tensor(new Float32Array(2 * V).fill(value, V), [2, V], 'f32');
    for (const given of [{}, { temperature: 1, topK: 5 }]) {
      expect(() => chooseTokens(logits, 0, samplingSchema.parse(given))).toThrow(expect.objectContaining({ code: 'numerical' }));
    }
  });
});
