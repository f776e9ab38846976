"""Writes libs/ml/tuners/fixtures/combined: two LoRAs over the Qwen 2 fixture, the second on fewer maps and with another scale, and what PEFT's
add_weighted_adapter makes of them. Needs torch, transformers, peft and safetensors. Run: python tools/golden/combined_fixture.py
"""

import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tiny_decoder import fixtures
from transformers import AutoModelForCausalLM

folder = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/tuners/fixtures/combined"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True)
torch.manual_seed(5)
base = AutoModelForCausalLM.from_pretrained(fixtures / "qwen2", dtype=torch.float32)
common = dict(r=3, init_lora_weights=False, task_type="CAUSAL_LM")
model = get_peft_model(base, LoraConfig(lora_alpha=4, target_modules=["q_proj", "down_proj"], **common), adapter_name="a")
model.add_adapter("b", LoraConfig(lora_alpha=7, target_modules=["q_proj"], use_rslora=True, **common))
for name in ("a", "b"):
    model.peft_config[name].base_model_name_or_path = "tiny/qwen2"
model.save_pretrained(folder, selected_adapters=["a", "b"])
for readme in folder.rglob("README.md"):
    readme.unlink()

KINDS = {"cat": {}, "linear": {}, "svd": {"svd_rank": 4}, "ties": {"density": 0.4}, "magnitude_prune": {"density": 0.3}}
golden = {}
for kind, options in KINDS.items():
    model.add_weighted_adapter(["a", "b"], [0.7, -0.4], kind, combination_type=kind, **options)
    for key, value in get_peft_model_state_dict(model, adapter_name=kind).items():
        golden[f"{kind}.{key.removeprefix('base_model.model.')}"] = value.contiguous()
save_file(golden, folder / "golden.safetensors")
