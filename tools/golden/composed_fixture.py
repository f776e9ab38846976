"""Writes libs/ml/tuners/fixtures/composed: adapters of PEFT and SWIFT over the Qwen 2 fixture, each in a folder of its own, and the logits with several of them active,
in the order of the names: `logits.<name>+<name>`. Of one method they are PEFT's set_adapter([...]); of several they are wrapped one around the other.
Needs torch, transformers, peft, ms-swift and safetensors. Run: python tools/golden/composed_fixture.py
"""

import json
import pathlib
import shutil

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from swift.tuners import AdapterConfig, Swift
from transformers import AutoModelForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
target = libraries / "tuners/fixtures/composed"
shutil.rmtree(target, ignore_errors=True)
target.mkdir()


def base():
    return AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures/qwen2", dtype=torch.float32)


lora = dict(init_lora_weights=False, task_type="CAUSAL_LM")
ADAPTERS = {
    "lora": LoraConfig(r=3, lora_alpha=4, target_modules=["q_proj", "down_proj"], **lora),
    "rslora": LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules="all-linear", rank_pattern={"k_proj": 1, "down_proj": 4}, alpha_pattern={"layers.1": 5}, **lora),
    "biased": LoraConfig(r=2, lora_alpha=2, lora_bias=True, target_modules=["q_proj", "up_proj"], **lora),
    "dora": LoraConfig(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"], **lora),
    "dora2": LoraConfig(r=3, lora_alpha=3, use_dora=True, target_modules=["q_proj", "gate_proj"], **lora),
    "head": LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "lm_head", "embed_tokens"], **lora),
    "head2": LoraConfig(r=1, lora_alpha=2, target_modules=["lm_head", "embed_tokens"], **lora),
    "ia3": IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "gate_proj", "down_proj"], feedforward_modules=["v_proj", "down_proj"]),
    "ia3b": IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "o_proj", "down_proj"], feedforward_modules=["down_proj"]),
}
for index, (name, config) in enumerate(ADAPTERS.items()):
    torch.manual_seed(index)
    model = get_peft_model(base(), config)
    model.peft_config["default"].base_model_name_or_path = "tiny/qwen2"
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(target / name, save_embedding_layers=False)
    (target / name / "README.md").unlink()
torch.manual_seed(90)
houlsby = AdapterConfig(dim=32, target_modules=["mlp"], hidden_pos=None, adapter_length=4, act_layer="gelu")
model = Swift.prepare_model(base(), houlsby)
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
model.save_pretrained(str(target / "swift"))
shutil.move(target / "swift/default", target / "adapter")
shutil.rmtree(target / "swift")

ids = torch.randint(0, 64, (1, 12))
golden = {"ids": ids.int()}


def together(names):
    """Adapters of one method as PEFT has them active together."""
    model = PeftModel.from_pretrained(base(), target / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(target / name, name)
    model.base_model.set_adapter(list(names))
    return model


def nested(names):
    """One around the other, the first innermost; LoRAs at the beginning as PEFT has them active together."""
    loras = [name for name in names if isinstance(ADAPTERS.get(name), LoraConfig)]
    model = together(loras).base_model.model if names[: len(loras)] == loras and loras else base()
    for name in names[len(loras) :] if names[: len(loras)] == loras else names:
        if (target / name / "adapter_config.json").read_text().find("swift_type") >= 0:
            folder = target / "swift"
            shutil.copytree(target / name, folder / "default")
            model = Swift.from_pretrained(model, str(folder)).base_model
            shutil.rmtree(folder)
        else:
            model = PeftModel.from_pretrained(model, target / name, adapter_name=name).base_model.model
    return model


CASES = [
    (together, ["lora", "rslora"]), (together, ["rslora", "biased", "lora"]), (together, ["lora", "dora"]), (together, ["dora", "lora"]), (together, ["biased", "dora"]),
    (together, ["dora", "dora2"]), (together, ["dora2", "rslora", "dora"]), (together, ["head", "head2"]), (together, ["ia3", "ia3b"]),
    (nested, ["lora", "ia3"]), (nested, ["ia3", "rslora"]), (nested, ["ia3", "dora"]), (nested, ["biased", "dora", "ia3"]), (nested, ["rslora", "adapter"]), (nested, ["ia3", "adapter"]),
]
for compose, names in CASES:
    with torch.no_grad():
        golden["logits." + "+".join(names)] = compose(names).eval()(input_ids=ids).logits.contiguous()
save_file(golden, target / "golden.safetensors")
