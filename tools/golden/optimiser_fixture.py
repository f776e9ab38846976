"""Writes libs/ml/training/fixtures/optimiser.json: learning rates of Transformers' schedules, and parameters updated by torch's AdamW with clipping.

Needs torch and transformers. Run: python tools/golden/optimiser_fixture.py
"""

import json
import pathlib

import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

TARGET = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/training/fixtures/optimiser.json"
RATE = 2e-3


def rates(make, total, warmup):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = make(optimiser, warmup, total)
    out = []
    for _ in range(total):
        out.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    return out


def schedules():
    makers = {
        "cosine": lambda o, w, t: get_cosine_schedule_with_warmup(o, w, t),
        "linear": lambda o, w, t: get_linear_schedule_with_warmup(o, w, t),
        "constant": lambda o, w, t: get_constant_schedule_with_warmup(o, w),
    }
    return [
        {"name": name, "totalSteps": total, "warmupSteps": warmup, "rates": rates(make, total, warmup)}
        for name, make in makers.items()
        for total, warmup in [(12, 3), (7, 0), (1, 1)]
    ]


def adamw(weight_decay, max_norm):
    generator = torch.Generator().manual_seed(3)
    values = torch.nn.Parameter(torch.randn(23, generator=generator))
    start = values.detach().clone()
    optimiser = torch.optim.AdamW([values], lr=RATE, weight_decay=weight_decay)
    steps = []
    for i in range(6):
        gradient = torch.randn(23, generator=generator) * 10.0 ** (i - 3)
        gradient[i] = 0.0
        values.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([values], max_norm).item()
        optimiser.step()
        steps.append({"gradient": gradient.tolist(), "norm": norm, "values": values.detach().tolist()})
    return {"learningRate": RATE, "weightDecay": weight_decay, "maxGradNorm": max_norm, "start": start.tolist(), "steps": steps}


TARGET.parent.mkdir(parents=True, exist_ok=True)
TARGET.write_text(json.dumps({"schedules": schedules(), "learningRate": RATE, "adamw": [adamw(0.0, 1.0), adamw(0.1, 0.5)]}) + "\n")
