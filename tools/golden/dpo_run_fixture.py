"""Writes libs/ml/training/fixtures/dpo-run/run.json: ten steps of direct preference optimisation over the tiny Llama and the fresh PEFT adapter of
`lora-run` (run lora_run_fixture.py first), in torch.

The loss is TRL's `loss_type="sigmoid"` without label smoothing, written out: log-probabilities summed over the answer's tokens, the reference is the model
with its adapter disabled. Every step sees all pairs. Needs torch, transformers, peft. Run: python tools/golden/dpo_run_fixture.py
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import LlamaForCausalLM

fixtures = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/training/fixtures"
TARGET = fixtures / "dpo-run"
STEPS = 10
RATE = 1e-2
BETA = 0.3
MAX_NORM = 1.0
IGNORED = -100

torch.manual_seed(9)
model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(fixtures / "lora-run/model", dtype=torch.float32), fixtures / "lora-run/adapter", is_trainable=True)
model.train()

pairs = []
for prompt, chosen, rejected in [(6, 4, 7), (3, 5, 2), (11, 3, 3)]:
    start = torch.randint(0, 48, (prompt,)).tolist()
    pairs.append([{"ids": start + answer, "labels": [IGNORED] * prompt + answer} for answer in (torch.randint(0, 48, (size,)).tolist() for size in (chosen, rejected))])


def plain(name):
    return name.removeprefix("base_model.model.").replace(".default", "")


def log_prob(example):
    ids = torch.tensor([example["ids"]])
    labels = torch.tensor(example["labels"])[1:]
    log_probs = F.log_softmax(model(input_ids=ids).logits[0, :-1], dim=-1)
    taken = log_probs.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return (taken * (labels != IGNORED)).sum()


with torch.no_grad(), model.disable_adapter():
    reference = [[log_prob(example).item() for example in pair] for pair in pairs]

trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
optimiser = torch.optim.AdamW([parameter for _, parameter in trainable], lr=RATE, weight_decay=0.0)
steps = []
for _ in range(STEPS):
    rewards = torch.stack([torch.stack([BETA * (log_prob(example) - ref) for example, ref in zip(pair, refs)]) for pair, refs in zip(pairs, reference)])
    margins = rewards[:, 0] - rewards[:, 1]
    loss = -F.logsigmoid(margins).mean()
    loss.backward()
    if len(steps) == 1:  # In the first step the factors B are zero, and with them half of the gradients.
        gradients = {plain(name): parameter.grad.flatten().tolist() for name, parameter in trainable}
    norm = torch.nn.utils.clip_grad_norm_([parameter for _, parameter in trainable], MAX_NORM)
    steps.append(
        {
            "loss": loss.item(),
            "gradNorm": norm.item(),
            "rewards/chosen": rewards[:, 0].mean().item(),
            "rewards/rejected": rewards[:, 1].mean().item(),
            "rewards/accuracies": (margins > 0).float().mean().item(),
            "rewards/margins": margins.mean().item(),
        }
    )
    optimiser.step()
    optimiser.zero_grad()

TARGET.mkdir(exist_ok=True)
values = {plain(name): parameter.detach().flatten().tolist() for name, parameter in trainable}
run = {"beta": BETA, "learningRate": RATE, "maxGradNorm": MAX_NORM, "pairs": pairs, "reference": reference, "steps": steps, "gradients": gradients, "values": values}
rounded = json.loads(json.dumps(run), parse_float=lambda text: float(f"{float(text):.8g}"))
(TARGET / "run.json").write_text(json.dumps(rounded) + "\n")
