"""Writes libs/ml/tuners/fixtures/adapter-roots/{swift,peft}: folders that hold several adapters, as SWIFT and PEFT save them. SWIFT's with parameters of the base trained along
(extra_states) and a name that begins with another's; with the logits of both adapters active (`both.safetensors`).
Needs torch, transformers, peft, ms-swift and safetensors. Run: python tools/golden/adapter_roots_fixture.py
"""

import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from swift.tuners import AdapterConfig, Swift
from transformers import AutoModelForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
target = libraries / "tuners/fixtures/adapter-roots"
shutil.rmtree(target, ignore_errors=True)


def base():
    return AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures/qwen2", dtype=torch.float32)


def randomise(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


torch.manual_seed(3)
ids = torch.randint(0, 64, (1, 12))
common = dict(dim=32, hidden_pos=None, act_layer="gelu")
model = Swift.prepare_model(
    base(),
    {"a": AdapterConfig(target_modules=["mlp"], adapter_length=3, **common), "ab": AdapterConfig(target_modules=["layers.1.mlp"], adapter_length=2, **common)},
    extra_state_keys=[r".*q_proj\.bias", r"model\.norm\.weight"],
)
randomise(model)
model.save_pretrained(str(target / "swift"))
with torch.no_grad():
    save_file({"ids": ids.int(), "logits": model.eval()(input_ids=ids).logits.contiguous()}, target / "swift.safetensors")

lora = dict(init_lora_weights=False, task_type="CAUSAL_LM")
model = get_peft_model(base(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **lora))
model.add_adapter("other", LoraConfig(r=3, lora_alpha=4, target_modules=["down_proj"], **lora))
for config in model.peft_config.values():
    config.base_model_name_or_path = "tiny/qwen2"
model.base_model.set_adapter(["default", "other"])
model.save_pretrained(target / "peft")
with torch.no_grad():
    save_file({"ids": ids.int(), "logits": model.eval()(input_ids=ids).logits.contiguous()}, target / "peft.safetensors")
for readme in target.rglob("README.md"):
    readme.unlink()
