/** The flat vector on the device and back: in one piece, and for many numbers parameter by parameter, without holding them twice. */
import { openDevice } from '@tunefleet/ml-tensor';
import { ParameterViews } from './parameter-views';

test.each([
  ['in one piece', 1000, 3],
  ['one by one', 5_000_000, 2.1],
])('%s: every parameter in its shape, every gradient in its place, null where there is none', async (_how, width, timesMax) => {
  const device = await openDevice({ backend: 'tensorflow' });
  const parameters = [[2, width], [3], [width, 2]].map((shape, index) => ({ name: `${index}`, shape }));
  const values = Float32Array.from({ length: 4 * width + 3 }, (_, i) => i % 1013);
  const handles = () => device.memory.liveHandles - device.cachedScalars;
  const [before, held] = [device.memory.liveBytes, handles()];
  device.resetPeak();
  {
    using views = new ParameterViews(device, parameters, values);
    expect(views.tensors.map(({ shape }) => shape)).toEqual([[2, width], [3], [width, 2]]);
    expect([...device.readFloats(views.tensors[1]!)]).toEqual([0, 1, 2].map((i) => (2 * width + i) % 1013));
    const [first, , last] = views.tensors;
    const flat = views.readFlat(device, [first!, null, last!]);
    expect(flat.every((value, i) => value === (i >= 2 * width && i < 2 * width + 3 ? 0 : i % 1013))).toBe(true);
    expect(device.memory.peakBytes - before).toBeLessThan(timesMax * values.byteLength);
  }
  expect(handles()).toBe(held);
});
