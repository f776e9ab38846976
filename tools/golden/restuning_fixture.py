"""Writes libs/ml/tuners/fixtures/swift-restuning/<case>: ResTuning-Bypass folders saved by SWIFT over the tiny Llama `tied` of the models library (run
llama_fixture.py first), with the logits, loss, gradients, ten AdamW steps and final weights that SWIFT's own classes and torch compute for them.

Needs torch, transformers, safetensors, and ms-swift. Run: python tools/golden/restuning_fixture.py
"""

import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from swift.tuners import Swift
from swift.tuners.restuning import ResTuningConfig
from transformers import LlamaForCausalLM

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
folder = libraries / "tuners/fixtures/swift-restuning"
WIDTH = 32
STEPS = 10
recipe = dict(dims=WIDTH, root_modules=r"model.layers.0", target_modules="model.norm", stem_modules=r"model.layers.\d+")
CASES = {
    # Every block, names by regular expression.
    "plain": dict(recipe, tuner_cfg="res_adapter", zero_init_last=True),
    # Other lengths and weights per block and path, stems in an order of their own.
    "mixed": dict(
        recipe,
        stem_modules=["model.layers.1", "model.layers.0"],
        stem_modules_hook="input",
        root_modules_hook="output",
        tuner_cfg=[
            {"lateral_cfg": {"res_adapter": {"adapter_length": 4, "adapter_weight": "scale_channel"}}, "vertical_cfg": "zero"},
            {"lateral_cfg": {"res_adapter": {"adapter_length": [3, 5], "adapter_weight": "scale"}}, "vertical_cfg": {"res_adapter": {"adapter_length": 6, "adapter_weight": "scalar_0.5"}}},
        ],
    ),
}

for case, fields in CASES.items():
    torch.manual_seed(3)
    base = LlamaForCausalLM.from_pretrained(libraries / "models/fixtures/tied", dtype=torch.float32)
    model = Swift.prepare_model(base, {"default": ResTuningConfig(**fields)}).eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if ".restuning_default." in f".{name}"}
    short = lambda name: "restuning_default." + name.split("restuning_default.")[1]
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    target = folder / case
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.move(target / "default" / name, target / name)
    for path in [*target.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in ("adapter_config.json", "adapter_model.safetensors"):
            path.unlink()
    assert set(load_file(target / "adapter_model.safetensors")) == {short(name) for name in trained}

    ids = torch.randint(0, 64, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    output = model(input_ids=ids, labels=labels, use_cache=False)
    output.loss.backward()
    golden = {"ids": ids.int(), "labels": labels.int(), "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    for name, parameter in trained.items():
        golden["grad." + short(name)] = parameter.grad.clone()
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    golden["losses"] = torch.tensor(losses)
    for name, parameter in trained.items():
        golden["final." + short(name)] = parameter.detach()
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, target / "golden.safetensors")
    print(case, losses[0], losses[-1], sorted(trained))
