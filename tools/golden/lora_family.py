"""What the scripts for LoRA's variants share: a step-by-step record of training an adapter with PEFT over the tiny Llama `tied` of the models library.

Needs torch, transformers, peft and safetensors.
"""

import json
import pathlib
import shutil

import torch
from peft import get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
STEPS = 10
RATE = 5e-3
WEIGHT_DECAY = 0.1


def plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default", "").replace("_vector.weight", "_vector").replace(".modules_to_save", "")


def trained(model) -> dict[str, torch.Tensor]:
    return {plain(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def record(name: str, config, base: str = "tied", disturb: bool = True, optimiser=None) -> None:
    """fixtures/<name>: the fresh adapter's values (`start.`), logits, loss and gradients of the adapter in the folder (`grad.`), and ten AdamW steps from it:
    losses and final values (`end.`). With `disturb` the adapter in the folder is the fresh one with all its values moved a little."""
    folder = libraries / "tuners/fixtures" / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(11)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures" / base, dtype=torch.float32), config).eval()
    model.peft_config["default"].base_model_name_or_path = f"tiny/{base}"
    golden = {f"start.{key}": value.detach().clone() for key, value in trained(model).items()}
    converts = isinstance(config.init_lora_weights, str)
    if converts:
        # As PEFT wants the start kept, to write the adapter as a plain LoRA later.
        initial = folder / "initial"
        kind, model.peft_config["default"].init_lora_weights = config.init_lora_weights, True
        model.save_pretrained(initial)
        model.peft_config["default"].init_lora_weights = kind
    if disturb:
        with torch.no_grad():
            for value in trained(model).values():
                value.add_(0.1 * torch.randn_like(value) * (value.std() + 0.5))
        golden |= {f"adapter.{key}": value.detach().clone() for key, value in trained(model).items()}
    if converts:
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial))
        shutil.rmtree(initial)
    else:
        model.save_pretrained(folder)
    (folder / "README.md").unlink()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    golden |= {"ids": ids.int(), "labels": labels.int()}
    optimiser = (optimiser or (lambda model: torch.optim.AdamW(trained(model).values(), lr=RATE, weight_decay=WEIGHT_DECAY)))(model)
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        output = model(input_ids=ids, labels=labels)
        output.loss.backward()
        losses.append(output.loss.item())
        if step == 0:
            golden["logits"] = output.logits.detach()
            for key, value in trained(model).items():
                golden[f"grad.{key}"] = value.grad.clone()
        optimiser.step()
    golden |= {f"end.{key}": value.detach() for key, value in trained(model).items()}
    golden["losses"] = torch.tensor(losses)
    save_file({key: tensor.contiguous() for key, tensor in golden.items()}, folder / "golden.safetensors")
    (folder / "run.json").write_text(json.dumps({"learningRate": RATE, "weightDecay": WEIGHT_DECAY}) + "\n")
