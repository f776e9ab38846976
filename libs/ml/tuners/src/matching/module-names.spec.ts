/** The table of PEFT's matching rules; expectations were read off `check_target_module_exists` and `get_pattern_key` of PEFT 0.21. */
import { layerNumber, matchesName, patternValue, selects } from './module-names';
import { withinTimeLimit } from './time-limit';

const Q1 = 'model.layers.1.self_attn.q_proj';

test.each([
  ['q_proj', Q1, false],
  ['.*q_proj', Q1, true],
  [String.raw`model\.layers\.[01]\.self_attn\.(q|v)_proj`, Q1, true],
  [String.raw`model\.layers\.0.*`, Q1, false],
  ['a|.*q_proj', Q1, true],
  ['.*q', Q1, false],
  [String.raw`(?P<kind>.*)\.q_proj\Z`, Q1, true],
  ['(?i).*Q_PROJ', Q1, true],
  [['q_proj'], Q1, true],
  [['proj'], Q1, false],
  [['self_attn.q_proj'], Q1, true],
  [[Q1], Q1, true],
  [['attn.q_proj'], Q1, false],
  [['model.layers.1.self_attn'], Q1, false],
  [['q_proj'], 'q_proj', true],
  [[], Q1, false],
])('%j names %s: %p', (pattern, path, expected) => {
  expect(matchesName(pattern, path)).toBe(expected);
});

test('a bad pattern says so', () => {
  expect(() => matchesName('q_(proj', Q1)).toThrow('the pattern "q_(proj" is not a usable regular expression');
});

test('a pattern that runs away is stopped', () => {
  expect(() => withinTimeLimit(() => matchesName('(a+)+x', 'a'.repeat(60)), 50)).toThrow('took longer than 50 ms to match');
  expect(withinTimeLimit(() => matchesName('.*q_proj', Q1))).toBe(true);
});

test('exclusions win, layer numbers filter hits of a list but not full paths', () => {
  const plain = { target: ['q_proj', 'model.layers.2.mlp.up_proj'], exclude: null, layers: [], layersPattern: [] };
  expect(selects(plain, Q1)).toBe(true);
  expect(selects({ ...plain, exclude: ['self_attn.q_proj'] }, Q1)).toBe(false);
  expect(selects({ ...plain, exclude: '.*layers.1.*' }, Q1)).toBe(false);
  expect(selects({ ...plain, exclude: [] }, Q1)).toBe(true);
  expect(selects({ ...plain, layers: [0, 2] }, Q1)).toBe(false);
  expect(selects({ ...plain, layers: [1] }, Q1)).toBe(true);
  expect(selects({ ...plain, layers: [0] }, 'model.layers.2.mlp.up_proj')).toBe(true);
  expect(selects({ ...plain, layers: [1], layersPattern: ['blocks'] }, Q1)).toBe(false);
  expect(selects({ ...plain, layers: [1], layersPattern: ['blocks', 'layers'] }, Q1)).toBe(true);
});

test('the layer number is the first, or the one after a given name', () => {
  expect(layerNumber('model.layers.1.experts.7.up_proj', [])).toBe(1);
  expect(layerNumber('model.layers.1.experts.7.up_proj', ['experts'])).toBe(7);
  expect(layerNumber('layers.3.q_proj', ['layers'])).toBe(3);
  expect(layerNumber('lm_head', [])).toBeNull();
});

test('patterns match the end from a dot on; the first in order wins', () => {
  const patterns = { q_proj: 2, '^model.layers.1.self_attn.v_proj': 6, 'layers.1.self_attn.q_proj': 9, 'mlp.(up|down)_proj': 3 };
  expect(patternValue(patterns, Q1)).toBe(2);
  expect(patternValue(patterns, 'model.layers.1.self_attn.v_proj')).toBe(6);
  expect(patternValue(patterns, 'model.layers.0.self_attn.v_proj')).toBeUndefined();
  expect(patternValue(patterns, 'model.layers.0.mlp.down_proj')).toBe(3);
  expect(patternValue({ proj: 1 }, Q1)).toBeUndefined();
});
