"""Writes libs/ml/models/fixtures/<model type> for every decoder but Llama: tiny random models with logits and a greedy continuation by Transformers,
and libs/ml/tuners/fixtures/architectures/<model type>: an adapter by PEFT over each, with logits, loss and every gradient.

Numbers are chosen so that each option changes the result: windows shorter than the rows, caps of the size of the scores, a query scale unlike the head width.
Needs torch, transformers, peft and safetensors. Run: python tools/golden/decoder_fixtures.py [model type ...]
"""

import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tiny_decoder import fixtures, write
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

adapters = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/tuners/fixtures/architectures"
SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0)
GEMMA = dict(head_dim=12, query_pre_attn_scalar=5, final_logit_softcapping=1.5, sliding_window=5)

CONFIGS = {
    "qwen2": Qwen2Config(**SHAPE, num_hidden_layers=2, tie_word_embeddings=True, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "mistral": MistralConfig(**SHAPE, num_hidden_layers=2, head_dim=12, sliding_window=6, rms_norm_eps=1e-5),
    "qwen3": Qwen3Config(**SHAPE, num_hidden_layers=2, head_dim=12, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1000.0)),
    "phi3": Phi3Config(**SHAPE, num_hidden_layers=2, sliding_window=9),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0, scale_attn_by_inverse_layer_idx=True),
    "gemma2": Gemma2Config(**SHAPE, **GEMMA, num_hidden_layers=3, attn_logit_softcapping=1.2),
    "gemma3_text": Gemma3TextConfig(
        **SHAPE,
        **GEMMA,
        num_hidden_layers=3,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=dict(
            sliding_attention=dict(rope_type="default", rope_theta=100.0), full_attention=dict(rope_type="linear", factor=4.0, rope_theta=1000.0)
        ),
    ),
}


def write_adapter(name: str) -> None:
    folder = adapters / name
    shutil.rmtree(folder, ignore_errors=True)
    base = AutoModelForCausalLM.from_pretrained(fixtures / name, dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config).eval()
    model.peft_config["default"].base_model_name_or_path = f"tiny/{name}"
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    ids = torch.randint(0, 64, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    output = model(input_ids=ids, labels=labels)
    output.loss.backward()
    golden = {"ids": ids.int(), "labels": labels.int(), "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            golden["grad." + key.removeprefix("base_model.model.").replace(".default", "")] = parameter.grad
    save_file({key: tensor.contiguous() for key, tensor in golden.items()}, folder / "golden.safetensors")


for index, (name, config) in enumerate(CONFIGS.items()):
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        continue
    torch.manual_seed(10 + index)
    write(name, AutoModelForCausalLM.from_config(config), torch.float32, greedy_tokens=12, centred_norms=name.startswith("gemma"))
    write_adapter(name)
    print(name, json.dumps(sorted(path.name for path in (fixtures / name).iterdir())))
