"""Writes libs/ml/tuners/fixtures/peft-tied and peft-tied-saved: what is trained of the embedding is trained of the head that is the same table. Run: python tools/golden/lora_tied_fixture.py"""

from lora_family import record
from peft import LoraConfig


def lora(**fields) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", ensure_weight_tying=True, **fields)


record("peft-tied", lora(target_modules=["q_proj", "embed_tokens"]))
record("peft-tied-saved", lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]))
