"""Writes libs/ml/training/fixtures/lora-run: a tiny random Llama, a fresh PEFT adapter over it, and ten steps of training with torch.

Every step sees all examples, so the order of examples does not matter. Needs torch, transformers, peft.
Run: python tools/golden/lora_run_fixture.py
"""

import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

TARGET = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/training/fixtures/lora-run"
STEPS = 10
WARMUP = 2
RATE = 1e-2
WEIGHT_DECAY = 0.01
MAX_NORM = 1.0
IGNORED = -100

torch.manual_seed(5)
shutil.rmtree(TARGET, ignore_errors=True)
base = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=64,
        initializer_range=0.25,
    )
)
base.save_pretrained(TARGET / "model")
(TARGET / "model/generation_config.json").unlink(missing_ok=True)
model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", base_model_name_or_path="tiny/random-llama"))
model.peft_config["default"].base_model_name_or_path = "tiny/random-llama"
model.save_pretrained(TARGET / "adapter")
(TARGET / "adapter/README.md").unlink()

examples = []
for length, prompt in [(13, 4), (9, 1), (16, 7), (5, 3)]:
    ids = torch.randint(0, 48, (length,)).tolist()
    examples.append({"ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})

width = max(len(example["ids"]) for example in examples)
ids = torch.tensor([example["ids"] + [0] * (width - len(example["ids"])) for example in examples])
labels = torch.tensor([example["labels"] + [IGNORED] * (width - len(example["labels"])) for example in examples])
attention = torch.tensor([[1] * len(example["ids"]) + [0] * (width - len(example["ids"])) for example in examples])

trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimiser = torch.optim.AdamW(trainable, lr=RATE, weight_decay=WEIGHT_DECAY)
schedule = get_cosine_schedule_with_warmup(optimiser, WARMUP, STEPS)
model.train()
steps = []
for _ in range(STEPS):
    loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable, MAX_NORM)
    steps.append({"loss": loss.item(), "gradNorm": norm.item(), "learningRate": schedule.get_last_lr()[0]})
    optimiser.step()
    schedule.step()
    optimiser.zero_grad()

run = {
    "examples": examples,
    "settings": {"learningRate": RATE, "warmupRatio": WARMUP / STEPS, "weightDecay": WEIGHT_DECAY, "maxGradNorm": MAX_NORM, "schedule": "cosine"},
    "steps": steps,
}
(TARGET / "run.json").write_text(json.dumps(run) + "\n")
