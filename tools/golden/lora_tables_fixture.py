"""Writes libs/ml/tuners/fixtures/peft-{tables,saved,tokens,scaled-embedding}: LoRA with what it can train of the embedding and the output head. Run: python tools/golden/lora_tables_fixture.py"""

from lora_family import record
from peft import LoraConfig


def lora(**fields) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **fields)


record("peft-tables", lora(target_modules=["q_proj", "embed_tokens", "lm_head"]), base="scaled")
record("peft-saved", lora(target_modules=["v_proj"], modules_to_save=["embed_tokens", "lm_head"]), base="scaled")
record("peft-tokens", lora(target_modules=["v_proj"], trainable_token_indices=[1, 5, 9]))
record("peft-scaled-embedding", lora(target_modules=["o_proj", "embed_tokens"]), base="gemma2")
