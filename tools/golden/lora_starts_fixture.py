"""Writes libs/ml/tuners/fixtures/peft-pissa and peft-olora: adapters that begin with a part of the weights, saved by PEFT as plain LoRAs. Run: python tools/golden/lora_starts_fixture.py"""

from lora_family import record
from peft import LoraConfig

for start in ("pissa", "olora"):
    record(f"peft-{start}", LoraConfig(r=4, lora_alpha=6, init_lora_weights=start, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 2}, task_type="CAUSAL_LM"))
