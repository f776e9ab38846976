"""Writes libs/ml/tuners/fixtures/peft-norms{,-gpt2,-gemma2}: LoRA with norms in modules_to_save. Run: python tools/golden/lora_norms_fixture.py"""

from lora_family import record
from peft import LoraConfig


def lora(**fields) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **fields)


record("peft-norms", lora(target_modules=["v_proj"], modules_to_save=["input_layernorm", "model.norm"]))
record("peft-norms-gpt2", lora(target_modules=["c_attn"], modules_to_save=["ln_1", "0.ln_2", "ln_f"], fan_in_fan_out=True), base="gpt2")
record("peft-norms-gemma2", lora(target_modules=["q_proj"], modules_to_save=["pre_feedforward_layernorm", "lm_head"]), base="gemma2")
