"""Writes libs/ml/formats/fixtures/peft-lora: a LoRA adapter saved by PEFT over a tiny random Llama.

Needs torch, transformers and peft. Run: python tools/golden/peft_lora_fixture.py
"""

import pathlib

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

folder = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/formats/fixtures/peft-lora"
torch.manual_seed(0)
base = LlamaForCausalLM(
    LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
)
config = LoraConfig(r=2, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", base_model_name_or_path="tiny/random-llama")
model = get_peft_model(base, config)
model.peft_config["default"].base_model_name_or_path = "tiny/random-llama"
model.save_pretrained(folder)
