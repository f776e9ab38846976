"""Writes libs/ml/tuners/fixtures/peft-readers/<case>: small adapters as PEFT writes them with one option each, over tiny models, with their logits.
Cases are also spelled as other versions spell them. Run: python tools/golden/lora_readers_fixture.py"""

import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
target = libraries / "tuners/fixtures/peft-readers"
shutil.rmtree(target, ignore_errors=True)

CASES = {
    "patterns": ("tied", dict(target_modules="all-linear", rank_pattern={"q_proj": 1, "^model.layers.1.self_attn.v_proj": 3, "down_proj": 2}, alpha_pattern={r"layers\.0\..*": 5, "mlp.up_proj": 1})),
    "layers": ("tied", dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "one-layer": ("qwen3", dict(target_modules=["k_proj", "o_proj"], layers_to_transform=0)),
    "regex-exclude": ("tied", dict(target_modules=r".*\.(q|v|up)_proj", exclude_modules=r".*layers\.0\..*v_proj")),
    "exclude-list": ("tied", dict(target_modules="all-linear", exclude_modules=["mlp.up_proj", "model.layers.0.self_attn.q_proj"])),
    "rslora": ("qwen2", dict(target_modules=["q_proj", "down_proj"], use_rslora=True, lora_alpha=3, rank_pattern={"down_proj": 1})),
    "dora-qwen2": ("qwen2", dict(target_modules=["q_proj", "v_proj"], use_dora=True)),
    "dora-gpt2": ("gpt2", dict(target_modules=["c_attn", "c_proj"], use_dora=True, fan_in_fan_out=True)),
    "dora-head": ("scaled", dict(target_modules=["q_proj", "lm_head"], use_dora=True)),
    "embedding-gpt2": ("gpt2", dict(target_modules=["c_attn", "wte"], fan_in_fan_out=True)),
    "tied-both": ("tied", dict(target_modules=["q_proj", "lm_head", "embed_tokens"])),
    "tied-saved-head": ("tied", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "tied-saved-embedding": ("tied", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "tokens-untied": ("scaled", dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2, 7]})),
    "orthogonal": ("tied", dict(target_modules=["q_proj"], init_lora_weights="orthogonal")),
    "lora-bias": ("qwen2", dict(target_modules=["q_proj", "down_proj"], lora_bias=True)),
    "bias-lora-only": ("qwen2", dict(target_modules=["q_proj", "down_proj"], bias="lora_only")),
    "bias-all": ("qwen2", dict(target_modules=["q_proj"], bias="all")),
    "tied-weights": ("tied", dict(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True)),
    "tied-saved": ("tied", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
}


def respelled(tensors: dict, change) -> dict:
    return {change(key): value for key, value in tensors.items()}


for index, (name, (base, fields)) in enumerate(CASES.items()):
    torch.manual_seed(index)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures" / base, dtype=torch.float32), LoraConfig(**{"r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM", **fields})).eval()
    model.peft_config["default"].base_model_name_or_path = f"tiny/{base}"
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    folder = target / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    ids = torch.randint(0, 64, (1, 12))
    with torch.no_grad():
        save_file({"ids": ids.int(), "logits": model(input_ids=ids).logits.contiguous()}, folder / "golden.safetensors")
    (folder / "base.txt").write_text(base + "\n")

# The same adapters as older and newer versions write them.
for source, name, keys, config in [
    ("dora-qwen2", "dora-suffix", lambda key: key.replace("lora_magnitude_vector", "lora_magnitude_vector.weight"), {"brand_new_option": None}),
    ("dora-qwen2", "dora-named", lambda key: key.replace("lora_magnitude_vector", "lora_magnitude_vector.default.weight").replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."), {}),
    ("patterns", "without-prefix", lambda key: key.removeprefix("base_model.model."), {}),
    ("tied-saved-head", "saved-named", lambda key: key.replace("lm_head.weight", "lm_head.modules_to_save.default.weight"), {}),
]:
    shutil.copytree(target / source, target / name)
    tensors = load_file(target / name / "adapter_model.safetensors")
    save_file(respelled(tensors, keys), target / name / "adapter_model.safetensors", metadata={"format": "pt"})
    path = target / name / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2))
# An early version wrote these fields only.
shutil.copytree(target / "rslora", target / "few-fields")
path = target / "few-fields/adapter_config.json"
full = json.loads(path.read_text())
path.write_text(json.dumps({key: full[key] for key in ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "target_modules")}))
