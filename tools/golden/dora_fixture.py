"""Writes libs/ml/tuners/fixtures/peft-dora: DoRA over all linear maps of the tiny Llama `tied`, one rank of its own. Run: python tools/golden/dora_fixture.py"""

from lora_family import record
from peft import LoraConfig

record("peft-dora", LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], rank_pattern={"o_proj": 2}, task_type="CAUSAL_LM"))
