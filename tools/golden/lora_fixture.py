"""Writes libs/ml/tuners/fixtures/peft-lora: an adapter saved by PEFT over the tiny Llama `tied` of the models library (run llama_fixture.py first),
with the logits, loss and gradients that PEFT and torch compute for it. Rank and alpha patterns, rsLoRA, both factors random.

Needs torch, transformers, peft and safetensors. Run: python tools/golden/lora_fixture.py
"""

import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
folder = libraries / "tuners/fixtures/peft-lora"
torch.manual_seed(1)
base = LlamaForCausalLM.from_pretrained(libraries / "models/fixtures/tied", dtype=torch.float32)
config = LoraConfig(
    r=4,
    lora_alpha=6,
    use_rslora=True,
    init_lora_weights=False,
    target_modules="all-linear",
    rank_pattern={"k_proj": 2, r"^model.layers.1.self_attn.v_proj": 3},
    alpha_pattern={r"mlp\..*": 3},
    task_type="CAUSAL_LM",
)
model = get_peft_model(base, config).eval()
model.peft_config["default"].base_model_name_or_path = "tiny/tied"
model.save_pretrained(folder)
(folder / "README.md").unlink()

ids = torch.randint(0, 64, (2, 24))
labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
output = model(input_ids=ids, labels=labels)
output.loss.backward()
golden = {"ids": ids.int(), "labels": labels.int(), "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
for name, parameter in model.named_parameters():
    if parameter.grad is not None:
        golden["grad." + name.removeprefix("base_model.model.").replace(".default", "")] = parameter.grad
save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / "golden.safetensors")
