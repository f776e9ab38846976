"""Writes libs/ml/models/fixtures/{tied,scaled}: two tiny random Llamas with the logits Transformers computes for them.

`tied`: shared embeddings, grouped heads, F32. `scaled`: own head, biases, Llama 3.1 rotary scaling, head width unlike C / H, BF16 in two shards.
Needs torch, transformers and safetensors. Run: python tools/golden/llama_fixture.py
"""

import torch
from tiny_decoder import write
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)

torch.manual_seed(0)
write("tied", LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True, max_position_embeddings=128, rms_norm_eps=1e-5)), torch.float32)
scaling = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_theta=500.0)
write(
    "scaled",
    LlamaForCausalLM(
        LlamaConfig(**SHAPE, head_dim=12, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, max_position_embeddings=64, rope_parameters=scaling)
    ),
    torch.bfloat16,
    max_shard_size="20KB",
)
