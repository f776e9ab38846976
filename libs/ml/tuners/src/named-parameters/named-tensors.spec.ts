import { valuesOf, withoutName } from './named-tensors';

const PATTERN = /^restuning_(?<name>[A-Za-z0-9_-]+)(?=\.bypass_blocks\.)/;
const tensor = (name: string, values = [1, 2]) => ({ name, dtype: 'F32' as const, shape: [values.length], data: new Uint8Array(Float32Array.from(values).buffer) });

test('an adapter may have any name; another one whose name begins alike is another one', () => {
  const named = (name: string) => withoutName([tensor(`${name}.bypass_blocks.0.carry`), tensor('lm_head.weight')], PATTERN, 'restuning_default').map(({ name: each }) => each);
  for (const name of ['restuning_default', 'restuning_a', 'restuning_a-b_restuning_c']) expect(named(name)).toEqual(['restuning_default.bypass_blocks.0.carry', 'lm_head.weight']);
  expect(() => withoutName([tensor('restuning_a.bypass_blocks.0.carry'), tensor('restuning_ab.bypass_blocks.0.carry')], PATTERN, 'x')).toThrow('the tensors of 2 adapters: a, ab; give each a folder of its own');
});

test('what lacks, is too much, of another shape or no number is refused', () => {
  const parameters = [{ name: 'a', shape: [2] }];
  expect(valuesOf(parameters, [tensor('a')])).toEqual(Float32Array.of(1, 2));
  expect(() => valuesOf(parameters, [])).toThrow('1 tensors are missing: a');
  expect(() => valuesOf(parameters, [tensor('a'), tensor('b')])).toThrow('1 of its tensors have no place in this model: b');
  expect(() => valuesOf(parameters, [tensor('a', [1, 2, 3])])).toThrow('"a" is [3] in the file and [2] for this model');
  expect(() => valuesOf(parameters, [tensor('a', [1, NaN])])).toThrow('tensor "a" holds numbers that are not finite (NaN at element 1)');
});
