"""Writes libs/ml/tuners/fixtures/{swift-adapter,swift-side,peft-ia3,peft-ia3-gpt2}: folders saved by SWIFT (ms-swift) and PEFT over tiny models of the models
library (run llama_fixture.py and decoder_fixtures.py first), with logits, gradients and ten AdamW steps.

Needs torch, transformers, peft, ms-swift and safetensors. Run: python tools/golden/module_tuners_fixture.py
"""

import json
import shutil

import torch
from peft import IA3Config, get_peft_model
from safetensors.torch import load_file, save_file
from swift.tuners import AdapterConfig, SideConfig, Swift
from transformers import AutoModelForCausalLM

from lora_family import RATE, STEPS, WEIGHT_DECAY, libraries


def record(name: str, base: str, prepare, save) -> None:
    """fixtures/<name>: the adapter as saved, its logits and gradients (`grad.`), and ten AdamW steps from it: losses and final values (`end.`)."""
    folder = libraries / "tuners/fixtures" / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(5)
    model = prepare(AutoModelForCausalLM.from_pretrained(libraries / "models/fixtures" / base, dtype=torch.float32)).eval()
    trained = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
    with torch.no_grad():
        for _, value in trained:
            value.add_(0.1 * torch.randn_like(value))
    save(model, folder)
    # Names as in the file: those of the module in memory, less the wrappers' prefix.
    stored = load_file(folder / "adapter_model.safetensors")
    names = {key: next(name for name in stored if key.replace(".default", "", 1 if "ia3_l" in key else 0).endswith(name)) for key, _ in trained}
    assert len(set(names.values())) == len(stored)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    golden = {"ids": ids.int(), "labels": labels.int()}
    optimiser = torch.optim.AdamW([value for _, value in trained], lr=RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        output = model(input_ids=ids, labels=labels)
        output.loss.backward()
        losses.append(output.loss.item())
        if step == 0:
            golden["logits"] = output.logits.detach()
            golden |= {f"grad.{names[key]}": value.grad.clone() for key, value in trained}
        optimiser.step()
    golden |= {f"end.{names[key]}": value.detach() for key, value in trained}
    golden["losses"] = torch.tensor(losses)
    save_file({key: tensor.contiguous() for key, tensor in golden.items()}, folder / "golden.safetensors")
    (folder / "run.json").write_text(json.dumps({"learningRate": RATE, "weightDecay": WEIGHT_DECAY}) + "\n")


def save_swift(model, folder) -> None:
    # SWIFT puts each adapter into a folder of its name.
    model.save_pretrained(str(folder) + ".swift")
    shutil.move(str(folder) + ".swift/default", folder)
    shutil.rmtree(str(folder) + ".swift")


def save_peft(model, folder) -> None:
    model.peft_config["default"].base_model_name_or_path = "tiny/" + model.config.model_type
    model.save_pretrained(folder)
    (folder / "README.md").unlink()


adapter = AdapterConfig(dim=32, target_modules=["self_attn", "layers.1.mlp"], hidden_pos=0, adapter_length=5, act_layer="gelu")
record("swift-adapter", "tied", lambda base: Swift.prepare_model(base, adapter), save_swift)
side = SideConfig(dim=32, target_modules=r"model\.(norm|layers\.0\.mlp)", side_module_name="mlp", target_hidden_pos=0)
record("swift-side", "tied", lambda base: Swift.prepare_model(base, side), save_swift)
record("peft-ia3", "tied", lambda base: get_peft_model(base, IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "gate_proj", "o_proj", "down_proj"], feedforward_modules=["v_proj", "down_proj"])), save_peft)
record("peft-ia3-gpt2", "gpt2", lambda base: get_peft_model(base, IA3Config(task_type="CAUSAL_LM")), save_peft)
