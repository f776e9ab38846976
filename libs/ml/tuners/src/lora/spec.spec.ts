import { isTunefleetError } from '@tunefleet/foundation';
import { matchProjections, parseTunerSpec, tunerSpecs } from '../specs';

const NAMES = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'];
const model = {
  ...{ modelType: 'llama', vocabSize: 32, hiddenSize: 8, layers: 3, keyValueHeads: 1, headDim: 4, modules: [], norms: [] },
  projections: [0, 1, 2].flatMap((layer) => NAMES.map((name) => ({ path: `model.layers.${layer}.${name}`, inSize: 8, outSize: 16 }))),
};
const paths = (fields: object) => matchProjections(tunerSpecs.lora.parse({ kind: 'lora', ...fields }), model).map(({ path }) => path);

test('defaults are those of PEFT', () => {
  expect(parseTunerSpec({ kind: 'lora' })).toEqual({
    kind: 'lora', r: 8, lora_alpha: 8, lora_dropout: 0, target_modules: null, exclude_modules: null, use_rslora: false, use_dora: false, init_lora_weights: true,
    layers_to_transform: null, layers_pattern: null, rank_pattern: {}, alpha_pattern: {}, modules_to_save: null, trainable_token_indices: null, loraplus_lr_ratio: null, loraplus_lr_embedding: 1e-6, ensure_weight_tying: false, lora_bias: false, bias: 'none',
  });
});

test('targets: usual ones, all-linear in any case, names, pattern, exclusion, layers', () => {
  expect(paths({})).toEqual([0, 1, 2].flatMap((layer) => [`model.layers.${layer}.self_attn.q_proj`, `model.layers.${layer}.self_attn.v_proj`]));
  expect(paths({ target_modules: 'All-Linear' })).toHaveLength(21);
  expect(paths({ target_modules: ['down_proj'], layers_to_transform: [0, 2] })).toEqual(['model.layers.0.mlp.down_proj', 'model.layers.2.mlp.down_proj']);
  expect(paths({ target_modules: ['down_proj'], layers_to_transform: 1 })).toEqual(['model.layers.1.mlp.down_proj']);
  expect(paths({ target_modules: '.*layers.2.*attn.*' })).toHaveLength(4);
  expect(paths({ target_modules: 'all-linear', exclude_modules: '.*mlp.*' })).toHaveLength(12);
});

test.each([
  ['qwen2', 'q_proj'],
  ['gemma3_text', 'v_proj'],
  ['phi3', 'qkv_proj'],
  ['gpt2', 'c_attn'],
])('usual targets of %s', (modelType, name) => {
  const path = `some.layers.0.${name}`;
  const other = { ...model, modelType, projections: [path, 'some.layers.0.q_proj', 'some.layers.0.v_proj', 'some.layers.0.up'].map((each) => ({ path: each, inSize: 8, outSize: 8 })) };
  const hits = matchProjections(tunerSpecs.lora.parse({ kind: 'lora' }), other).map((target) => target.path);
  expect(hits).toContain(path);
  expect(hits).not.toContain('some.layers.0.up');
});

test('rank and alpha patterns, rank-stabilised scale', () => {
  const fields = { target_modules: ['q_proj', 'v_proj'], r: 4, lora_alpha: 6, rank_pattern: { q_proj: 16 }, alpha_pattern: { '^model.layers.1.self_attn.q_proj': 32 } };
  const of = (rslora: boolean) => matchProjections(tunerSpecs.lora.parse({ kind: 'lora', ...fields, use_rslora: rslora }), model).map(({ rank, alpha, scale }) => [rank, alpha, scale]);
  expect(of(false)).toEqual([[16, 6, 6 / 16], [4, 6, 1.5], [16, 32, 2], [4, 6, 1.5], [16, 6, 6 / 16], [4, 6, 1.5]]);
  expect(of(true)[2]).toEqual([16, 32, 8]);
  expect(tunerSpecs.lora.countParameters(tunerSpecs.lora.parse({ kind: 'lora', ...fields }), model)).toBe(3 * (16 + 4) * 24);
});

test('fields of other methods are fine while they are switched off', () => {
  expect(parseTunerSpec({ kind: 'lora', use_dora: false, modules_to_save: null, loftq_config: {}, fan_in_fan_out: true })).toEqual(parseTunerSpec({ kind: 'lora' }));
});

test.each([
  [null, 'tuner', 'must be an object'],
  [{ kind: 'nonsense' }, 'tuner.kind', 'there is no tuner "nonsense"; there are lora'],
  [{}, 'tuner.kind', 'there is no tuner'],
  [{ kind: 'lora', r: 0 }, 'tuner.r', '>=1'],
  [{ kind: 'lora', r: 1.5 }, 'tuner.r', 'int'],
  [{ kind: 'lora', lora_alpha: '16' }, 'tuner.lora_alpha', 'number'],
  [{ kind: 'lora', lora_dropout: 1 }, 'tuner.lora_dropout', '<1'],
  [{ kind: 'lora', bias: 'some' }, 'tuner.bias', 'expected one of'],
  [{ kind: 'lora', lora_bias: true, use_dora: true }, 'tuner.lora_bias', 'cannot be used together with use_dora'],
  [{ kind: 'lora', init_lora_weights: 'eva' }, 'tuner.init_lora_weights', 'is not offered: it needs passes over the data'],
  [{ kind: 'lora', init_lora_weights: 'loftq' }, 'tuner.init_lora_weights', 'a base quantised to fit it'],
  [{ kind: 'lora', init_lora_weights: 'zeros' }, 'tuner.init_lora_weights', 'must be true, false, "gaussian", "orthogonal"'],
  [{ kind: 'lora', init_lora_weights: 'orthogonal', r: 3 }, 'tuner.init_lora_weights', 'needs even ranks'],
  [{ kind: 'lora', init_lora_weights: 'pissa', use_rslora: true, rank_pattern: { q_proj: 4 } }, 'tuner.use_rslora', 'no plain LoRA form'],
  [{ kind: 'lora', init_lora_weights: 'pissa_niter_x' }, 'tuner.init_lora_weights', 'must be true'],
  [{ kind: 'lora', target_parameters: ['x'] }, 'tuner.target_parameters', 'is not supported yet; leave it out'],
  [{ kind: 'lora', rank: 8 }, 'tuner.rank', 'is not a field of LoRA; the fields are r, lora_alpha'],
  [{ kind: 'lora', target_modules: [] }, 'tuner.target_modules', ''],
  [{ kind: 'lora', target_modules: 'all-linear', layers_to_transform: [1] }, 'tuner.layers_to_transform', 'cannot be used together with a string'],
  [{ kind: 'lora', layers_pattern: 'layers' }, 'tuner.layers_pattern', 'needs layers_to_transform'],
  [{ kind: 'lora', target_modules: '.*(q_proj' }, 'tuner.target_modules', 'the pattern ".*(q_proj" is not a usable regular expression'],
  [{ kind: 'lora', alpha_pattern: { '[': 1 } }, 'tuner.alpha_pattern', 'not a usable regular expression'],
  [{ kind: 'lora', rank_pattern: { q_proj: 0 } }, 'tuner.rank_pattern', '>=1'],
])('%j is refused', (value, param, message) => {
  expectRefusal(() => parseTunerSpec(value), param, message);
});

test.each([
  [{ target_modules: ['nothing'] }, '["nothing"] matches no linear map of this llama model; it has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or use "all-linear"'],
  [{ target_modules: 'q_proj' }, 'matches no linear map'],
  [{ target_modules: ['q_proj', 'c_attn'] }, '"c_attn" names no linear map'],
  [{ target_modules: ['q_proj', 'lm_head'] }, '"lm_head" names no linear map'],
  [{ target_modules: ['q_proj'], exclude_modules: ['q_proj'] }, 'that is not excluded'],
])('targets %j do not fit the model', (fields, message) => {
  expectRefusal(() => paths(fields), 'tuner.target_modules', message);
});

function expectRefusal(act: () => unknown, param: string, message: string): void {
  let thrown: unknown;
  try {
    act();
  } catch (error) {
    thrown = error;
  }
  if (!isTunefleetError(thrown)) throw new Error(`expected a refusal, got ${String(thrown)}`);
  expect({ code: thrown.code, param: thrown.param }).toEqual({ code: 'invalid_input', param });
  expect(thrown.message).toContain(message);
}
