"""Writes libs/ml/models/fixtures/bert: a tiny random BERT with a classifier, what Transformers computes for three texts of unlike length,
and libs/ml/tuners/fixtures/bert: an adapter by PEFT over it with logits, loss and every gradient.

Needs torch, transformers, peft and safetensors. Run: python tools/golden/bert_fixture.py
"""

import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tiny_decoder import fixtures
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(30)
adapter_folder = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/tuners/fixtures/bert"
config = BertConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, num_labels=3
)
model = BertForSequenceClassification(config)
with torch.no_grad():
    for key, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.copy_((1.0 if key.endswith("LayerNorm.weight") else 0.0) + 0.2 * torch.randn_like(parameter))
        else:
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
model.save_pretrained(fixtures / "bert")
model = BertForSequenceClassification.from_pretrained(fixtures / "bert", dtype=torch.float32, attn_implementation="eager").eval()

lengths = torch.tensor([12, 7, 1])
ids = torch.randint(0, 64, (3, 12))
attention_mask = (torch.arange(12) < lengths[:, None]).long()
token_type_ids = (torch.arange(12) >= 4).long().expand(3, 12)
inputs = dict(input_ids=ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
with torch.no_grad():
    hidden = model.bert(**inputs).last_hidden_state
    logits = model(**inputs).logits
mean = (hidden * attention_mask[..., None]).sum(1) / lengths[:, None]
golden = {"ids": ids.int(), "lengths": lengths.int(), "types": token_type_ids.int().contiguous(), "hidden": hidden, "mean": mean, "logits": logits}
save_file({key: tensor.contiguous() for key, tensor in golden.items()}, fixtures / "bert/golden.safetensors")

shutil.rmtree(adapter_folder, ignore_errors=True)
tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["query", "value", "dense"])).eval()
tuned.peft_config["default"].base_model_name_or_path = "tiny/bert"
tuned.save_pretrained(adapter_folder)
(adapter_folder / "README.md").unlink()
labels = torch.tensor([2, 0, 1])
output = tuned(**inputs, labels=labels)
output.loss.backward()
golden = {"labels": labels.int(), "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
for key, parameter in tuned.named_parameters():
    if parameter.grad is not None:
        golden["grad." + key.removeprefix("base_model.model.").replace(".default", "")] = parameter.grad
save_file({key: tensor.contiguous() for key, tensor in golden.items()}, adapter_folder / "golden.safetensors")
