"""Writes libs/ml/tuners/fixtures/full/<base>.safetensors: full fine-tuning of the tiny decoders of the models library (run llama_fixture.py and
decoder_fixtures.py first) by Transformers and torch.optim.AdamW, with the parameters that Transformers' Trainer lets decay. Per base: losses of ten steps, and the
length of every gradient of the first; the same with all but the last block, the final norm and an untied head frozen. Of three bases also logits, gradients and
the weights after the ten steps.

Needs torch, transformers and safetensors. Run: python tools/golden/full_fixture.py
"""

import pathlib
import re

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.trainer_pt_utils import get_parameter_names

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
folder = libraries / "tuners/fixtures/full"
WHOLE = ["tied", "gpt2", "qwen3"]
STEPS, RATE, DECAY = 10, 5e-3, 0.1
# As Trainer.get_decay_parameter_names of Transformers 5.
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def run(base: str, last_block_only: bool):
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures" / base, dtype=torch.float32, attn_implementation="eager").eval()
    if last_block_only:
        last = model.config.num_hidden_layers - 1
        trained = re.compile(rf"(model\.layers|transformer\.h)\.{last}\.|model\.norm\.|transformer\.ln_f\.|lm_head\.")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained.match(name) is not None)
    decaying = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups = [
        {"params": [value for name, value in parameters.items() if name in decaying], "weight_decay": DECAY},
        {"params": [value for name, value in parameters.items() if name not in decaying], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    golden = {"ids": ids.int(), "labels": labels.int()}
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        output = model(input_ids=ids, labels=labels)
        output.loss.backward()
        losses.append(output.loss.item())
        if step == 0:
            golden["logits"] = output.logits.detach()
            golden |= {f"grad.{name}": value.grad.clone() for name, value in parameters.items()}
        optimiser.step()
    golden |= {f"end.{name}": value.detach().clone() for name, value in parameters.items()}
    golden["losses"] = torch.tensor(losses)
    return golden


folder.mkdir(exist_ok=True)
for base in [path.name for path in sorted((libraries / "models/fixtures").iterdir()) if (path / "golden.safetensors").exists() and path.name not in ("bert", "bitsandbytes-nf4", "bitsandbytes-fp4")]:
    golden = run(base, False)
    golden |= {f"norm.{name.removeprefix('grad.')}": value.norm().reshape(1) for name, value in golden.items() if name.startswith("grad.")}
    if base not in WHOLE:
        golden = {name: value for name, value in golden.items() if name.split(".")[0] not in ("logits", "grad", "end")}
    last = run(base, True)
    golden |= {"last.losses": last["losses"]}
    golden |= {f"last.norm.{name.removeprefix('grad.')}": value.norm().reshape(1) for name, value in last.items() if name.startswith("grad.")}
    save_file({name: value.contiguous() for name, value in golden.items()}, folder / f"{base}.safetensors")
    print(base, golden["losses"].tolist()[::3], golden["last.losses"].tolist()[::3])
