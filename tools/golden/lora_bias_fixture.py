"""Writes libs/ml/tuners/fixtures/peft-lora-bias and peft-bias-{all,lora-only}: trained biases, of B and of the base. Run: python tools/golden/lora_bias_fixture.py"""

from lora_family import record
from peft import LoraConfig


def lora(**fields) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], **fields)


record("peft-lora-bias", lora(lora_bias=True), base="qwen2")
record("peft-bias-all", lora(bias="all"), base="qwen2")
record("peft-bias-lora-only", lora(bias="lora_only"), base="qwen2")
