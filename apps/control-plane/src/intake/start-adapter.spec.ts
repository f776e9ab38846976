import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { continuedTuner } from './start-adapter';

const lora = (fields: object = {}) => parseTunerSpec({ kind: 'lora', ...fields });
const settle = (asked: object) => continuedTuner(lora(asked), { own: lora({ r: 16, lora_alpha: 32 }), modelName: 'ft:a' });

test('defaults go on with what the adapter has', () => {
  expect(settle({})).toEqual(lora({ r: 16, lora_alpha: 32 }));
  expect(continuedTuner(null, { own: lora({ r: 16 }), modelName: 'ft:a' })).toEqual(lora({ r: 16 }));
});

test('settings of training alone may change', () => {
  expect(settle({ r: 16, lora_alpha: 32, lora_dropout: 0.1 })).toEqual(lora({ r: 16, lora_alpha: 32, lora_dropout: 0.1 }));
});

test('another shape is refused with its field', () => {
  expect(() => settle({ r: 4, lora_alpha: 32 })).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'tuner.r', message: expect.stringContaining('tuner.r is 4, but ft:a was tuned with 16') as unknown }));
});
