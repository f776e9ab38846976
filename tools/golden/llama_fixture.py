"""Writes libs/ml/models/fixtures: two tiny random Llamas with the logits Transformers computes for them.

`tied`: shared embeddings, grouped heads, F32. `scaled`: own head, biases, Llama 3.1 rotary scaling, head width unlike C / H, BF16 in two shards.
Needs torch, transformers and safetensors. Run: python tools/golden/llama_fixture.py
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

fixtures = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/models/fixtures"
SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def write(name: str, config: LlamaConfig, dtype: torch.dtype, **saving) -> None:
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" in key:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif key.endswith(".bias"):
                parameter.copy_(0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    model = model.to(dtype)
    folder = fixtures / name
    model.save_pretrained(folder, **saving)
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Read back: casting a model in memory would round its rotary frequencies, too.
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, config.vocab_size, (2, 24))
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    save_file({"ids": ids.int(), "logits": logits.contiguous()}, folder / "golden.safetensors")


torch.manual_seed(0)
write("tied", LlamaConfig(**SHAPE, tie_word_embeddings=True, max_position_embeddings=128, rms_norm_eps=1e-5), torch.float32)
scaling = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_theta=500.0)
write(
    "scaled",
    LlamaConfig(**SHAPE, head_dim=12, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, max_position_embeddings=64, rope_parameters=scaling),
    torch.bfloat16,
    max_shard_size="20KB",
)
