/** Configurations as published on the hub, shortened to the fields that matter: sizes must add up to the published parameter counts; what we do not compute is refused by name. */
import { isTunefleetError } from '@tunefleet/foundation';
import { describeCausalLm } from '../architecture-specs';
import { parseGemma2 } from '../gemma2/spec';
import { parseGemma3 } from '../gemma3_text/spec';
import { parseMistral } from '../mistral/spec';
import { parseQwen2 } from '../qwen2/spec';

const QWEN2 = { model_type: 'qwen2', vocab_size: 151936, hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24, num_attention_heads: 14, num_key_value_heads: 2, max_position_embeddings: 32768, rms_norm_eps: 1e-6, rope_theta: 1e6, sliding_window: 32768, use_sliding_window: false, max_window_layers: 21, tie_word_embeddings: true, hidden_act: 'silu' };
const MISTRAL = { model_type: 'mistral', vocab_size: 32000, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 8, max_position_embeddings: 32768, rms_norm_eps: 1e-5, rope_theta: 10000, sliding_window: 4096, tie_word_embeddings: false, hidden_act: 'silu' };
const QWEN3 = { model_type: 'qwen3', vocab_size: 151936, hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 28, num_attention_heads: 16, num_key_value_heads: 8, head_dim: 128, max_position_embeddings: 40960, rms_norm_eps: 1e-6, rope_theta: 1e6, rope_scaling: null, use_sliding_window: false, sliding_window: null, attention_bias: false, tie_word_embeddings: true, hidden_act: 'silu' };
const PHI3 = { model_type: 'phi3', vocab_size: 32064, hidden_size: 3072, intermediate_size: 8192, num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 32, max_position_embeddings: 4096, original_max_position_embeddings: 4096, rms_norm_eps: 1e-5, rope_theta: 10000, rope_scaling: null, sliding_window: 2047, tie_word_embeddings: false, hidden_act: 'silu' };
const GEMMA2 = { model_type: 'gemma2', vocab_size: 256000, hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 26, num_attention_heads: 8, num_key_value_heads: 4, head_dim: 256, max_position_embeddings: 8192, rms_norm_eps: 1e-6, rope_theta: 10000, sliding_window: 4096, attn_logit_softcapping: 50, final_logit_softcapping: 30, query_pre_attn_scalar: 256, hidden_act: 'gelu_pytorch_tanh', hidden_activation: 'gelu_pytorch_tanh' };
const GEMMA3 = { model_type: 'gemma3_text', vocab_size: 262144, hidden_size: 1152, intermediate_size: 6912, num_hidden_layers: 26, num_attention_heads: 4, num_key_value_heads: 1, head_dim: 256, max_position_embeddings: 32768, rms_norm_eps: 1e-6, rope_theta: 1e6, rope_local_base_freq: 10000, rope_scaling: null, sliding_window: 512, sliding_window_pattern: 6, attn_logit_softcapping: null, final_logit_softcapping: null, query_pre_attn_scalar: 256, hidden_activation: 'gelu_pytorch_tanh' };

const GPT2 = { model_type: 'gpt2', vocab_size: 50257, n_embd: 768, n_layer: 12, n_head: 12, n_positions: 1024, n_ctx: 1024, activation_function: 'gelu_new', layer_norm_epsilon: 1e-5 };

test.each([
  ['Qwen2.5-0.5B', QWEN2, 494_032_768, ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']],
  ['Mistral-7B-v0.1', MISTRAL, 7_241_732_096, ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']],
  ['Qwen3-0.6B', QWEN3, 596_049_920, ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']],
  ['Phi-3-mini-4k-instruct', PHI3, 3_821_079_552, ['qkv_proj', 'o_proj', 'gate_up_proj', 'down_proj']],
  ['gemma-2-2b', GEMMA2, 2_614_341_888, ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']],
  ['gemma-3-1b-it', GEMMA3, 999_885_952, ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']],
  ['gpt2', GPT2, 124_439_808, ['c_attn', 'c_proj', 'c_fc']],
])('%s', (_, config, parameters, maps) => {
  const { modelType, parameterCount, projections, layers } = describeCausalLm(config);
  expect({ modelType, parameterCount }).toEqual({ modelType: config.model_type, parameterCount: parameters });
  expect(projections).toHaveLength(layers * (modelType === 'gpt2' ? 4 : maps.length));
  expect([...new Set(projections.map(({ path }) => path.split('.').at(-1)))]).toEqual(maps);
});

test('windows: which blocks have one', () => {
  const windows = ({ layers }: ReturnType<typeof parseQwen2>) => layers.map(({ window }) => window);
  expect(windows(parseQwen2(QWEN2))).toEqual(new Array(24).fill(null));
  expect(windows(parseQwen2({ ...QWEN2, use_sliding_window: true, sliding_window: 100 }))).toEqual([...new Array(21).fill(null), 100, 100, 100]);
  expect(windows(parseMistral(MISTRAL))[31]).toBe(4096);
  expect(windows(parseMistral({ ...MISTRAL, sliding_window: null }))[0]).toBeNull();
  expect(windows(parseGemma2(GEMMA2)).slice(0, 3)).toEqual([4096, null, 4096]);
  expect(windows(parseGemma3(GEMMA3)).slice(0, 7)).toEqual([512, 512, 512, 512, 512, null, 512]);
});

test('Gemma 3 rotates blocks with a window in another way, in both spellings of the file', () => {
  const thetas = (config: object) => parseGemma3(config).layers.slice(4, 6).map(({ rope }) => [rope.theta, rope.scaling?.factor ?? 1]);
  expect(thetas({ ...GEMMA3, rope_scaling: { rope_type: 'linear', factor: 8 } })).toEqual([[10_000, 1], [1e6, 8]]);
  const { rope_theta: _theta, rope_local_base_freq: _local, ...rest } = GEMMA3;
  const byType = { sliding_attention: { rope_type: 'default', rope_theta: 5000 }, full_attention: { rope_type: 'linear', factor: 8, rope_theta: 2e6 } };
  expect(thetas({ ...rest, rope_parameters: byType })).toEqual([[5000, 1], [2e6, 8]]);
});

test.each([
  ['hidden_act', { ...QWEN2, hidden_act: 'gelu' }],
  ['rope_scaling.rope_type: rope_type "yarn" is not supported', { ...QWEN2, rope_scaling: { type: 'yarn', factor: 4 } }],
  ['layer_types: must name one type for each of the 24 blocks', { ...QWEN2, layer_types: ['full_attention'] }],
  ['layer_types.0: layer type "linear_attention" is not supported', { ...QWEN3, layer_types: new Array(28).fill('linear_attention') }],
  ['sliding_window', { ...MISTRAL, sliding_window: 0 }],
  ['rope_scaling.rope_type: rope_type "longrope" is not supported', { ...PHI3, rope_scaling: { type: 'longrope', short_factor: [], long_factor: [] } }],
  ['partial_rotary_factor: 0.75 is not supported', { ...PHI3, partial_rotary_factor: 0.75 }],
  ['hidden_activation: only the "gelu_pytorch_tanh" activation is supported, got "gelu"', { ...GEMMA2, hidden_activation: 'gelu' }],
  ['use_bidirectional_attention', { ...GEMMA2, use_bidirectional_attention: true }],
  ['attn_logit_softcapping', { ...GEMMA3, attn_logit_softcapping: 50 }],
  ['activation_function: only "gelu_new" and "gelu_pytorch_tanh" are supported, got "relu"', { ...GPT2, activation_function: 'relu' }],
  ['n_embd: 768 must be a multiple of n_head (7)', { ...GPT2, n_head: 7 }],
  ['add_cross_attention: cross attention is not supported', { ...GPT2, add_cross_attention: true }],
  ['model_type "gemma3"', { ...GEMMA3, model_type: 'gemma3' }],
])('refused: %s', (message, config) => {
  let thrown: unknown;
  try {
    describeCausalLm(config);
  } catch (error) {
    thrown = error;
  }
  if (!isTunefleetError(thrown)) throw new Error(`expected a refusal, got ${String(thrown)}`);
  expect(thrown.code).toBe('incompatible_artifact');
  expect(thrown.message).toContain(message);
});
