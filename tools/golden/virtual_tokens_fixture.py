"""Writes libs/ml/tuners/fixtures/virtual-tokens/<kind>/<base>: adapters with virtual tokens as PEFT saves them, over the tiny decoders of the models library
(run llama_fixture.py and decoder_fixtures.py first), with what PEFT and torch compute for them: the trained parameters, logits, loss, every gradient,
a greedy continuation by full passes, and over the tiny Llama the losses of ten steps of AdamW and what they end with.

Needs torch, transformers, peft and safetensors. Run: python tools/golden/virtual_tokens_fixture.py [kind ...]
"""

import pathlib
import shutil
import sys

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from tiny_decoder import fixtures
from transformers import AutoModelForCausalLM

folder = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/tuners/fixtures/virtual-tokens"
COMMON = dict(num_virtual_tokens=5, task_type="CAUSAL_LM")
CONFIGS = {
    "prompt-tuning": lambda: PromptTuningConfig(**COMMON),
    "prefix-tuning": lambda: PrefixTuningConfig(**COMMON),
    "prefix-projection": lambda: PrefixTuningConfig(**COMMON, prefix_projection=True, encoder_hidden_size=12),
    "p-tuning": lambda: PromptEncoderConfig(**COMMON, encoder_hidden_size=24),
}
BASES = ["tied", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "gpt2"]
STEPS, RATE = 10, 1e-2


def trained(model) -> dict[str, torch.Tensor]:
    """Parameters under the names that their module has in the prompt encoder; a lone table under its name in the file."""
    found = {name.split("prompt_encoder.default.")[1]: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"prompt_embeddings": found["embedding.weight"]} if len(found) == 1 else found


def losses(model, ids, labels) -> list[float]:
    optimiser = torch.optim.AdamW(trained(model).values(), lr=RATE, weight_decay=0.01)
    values = []
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        values.append(loss.item())
        optimiser.step()
        optimiser.zero_grad()
    return values


def greedy(model, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    start = ids.shape[1]
    for _ in range(tokens):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, start:]


def write(kind: str, base: str) -> None:
    torch.manual_seed(31)
    target = folder / kind / base
    shutil.rmtree(target, ignore_errors=True)
    plain = AutoModelForCausalLM.from_pretrained(fixtures / base, dtype=torch.float32, attn_implementation="eager")
    ids = torch.randint(0, 64, (2, 20))
    labels = torch.where(torch.rand(2, 20) < 0.6, ids, -100)
    # PEFT would have the last virtual token predict it; nothing predicts it elsewhere.
    labels[:, 0] = -100
    alone = plain(input_ids=ids).logits.detach()
    model = get_peft_model(plain, CONFIGS[kind]()).eval()
    model.peft_config["default"].base_model_name_or_path = f"tiny/{base}"
    model.save_pretrained(target)
    (target / "README.md").unlink()
    output = model(input_ids=ids, labels=labels)
    output.loss.backward()
    logits = output.logits[:, -20:].detach()
    assert (logits - alone).abs().max() > 0.1, "the virtual tokens are not seen"
    golden = {"ids": ids.int(), "labels": labels.int(), "logits": logits, "loss": output.loss.detach().reshape(1)}
    golden |= {f"value.{name}": parameter.detach().clone() for name, parameter in trained(model).items()}
    golden |= {f"grad.{name}": parameter.grad for name, parameter in trained(model).items()}
    with torch.no_grad():
        golden["greedy"] = greedy(model, ids[:1, :8], 8).int()
    if base == "tied":
        model.zero_grad()
        model.train()
        golden["losses"] = torch.tensor(losses(model, ids, labels))
        golden |= {f"final.{name}": parameter.detach() for name, parameter in trained(model).items()}
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, target / "golden.safetensors")
    print(kind, base, golden["loss"].item())


for kind in sys.argv[1:] or CONFIGS:
    for base in BASES if kind in ("prompt-tuning", "prefix-tuning") else BASES[:1]:
        write(kind, base)
