import { OpProfile, profiled } from './profile';
import { testDevice } from './testing';

test('notes every op by shape, with its calls and the bytes it moved, and changes no result', async () => {
  const { backend } = await testDevice('wasm');
  const profile = new OpProfile();
  const watched = profiled(backend, profile);
  const raws = [Float32Array.of(1, 2), Float32Array.of(3, 4)].map((data) => backend.upload(data, [2], 'f32'));
  const [a, b] = raws as [(typeof raws)[number], (typeof raws)[number]];
  for (let call = 0; call < 2; call++) {
    const sum = watched.binary('add', a, b);
    expect([...watched.read(sum)]).toEqual([4, 6]);
    watched.free(sum);
  }
  expect(profile.costs().find(({ label }) => label.startsWith('binary'))).toMatchObject({ label: 'binary add [2] [2]', calls: 2, bytes: 2 * 3 * 8 });
  profile.reset();
  expect(profile.costs()).toEqual([]);
  for (const raw of raws) backend.free(raw);
});
