"""Writes libs/ml/tuners/fixtures/peft-loraplus and peft-loraplus-dora: training with PEFT's LoRA+ optimiser. Run: python tools/golden/loraplus_fixture.py"""

import torch
from lora_family import RATE, WEIGHT_DECAY, record
from peft import LoraConfig
from peft.optimizers import create_loraplus_optimizer


def plus(**fields):
    return lambda model: create_loraplus_optimizer(model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=4, loraplus_weight_decay=WEIGHT_DECAY, **fields)


record("peft-loraplus", LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"]), base="scaled", optimiser=plus(loraplus_lr_embedding=1e-4))
record("peft-loraplus-dora", LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", use_dora=True, target_modules=["v_proj"]), optimiser=plus())
