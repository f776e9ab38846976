"""Writes libs/ml/tuners/fixtures/restuning-branches: ResTuning without a bypass over the tiny Llama `tied` of the models library (run llama_fixture.py first). No other
tool has the method, so its definition is written out here in torch: branches as forward hooks on modules, and the prefix beside attention in its parallel form,
(1 - t) Attn(Q, K, V) + t Attn(Q, Kp, Vp), each attention with a softmax of its own. Queries meet Kp as rotated for a token behind the n virtual ones.

Needs torch, transformers and safetensors. Run: python tools/golden/restuning_branches_fixture.py
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, linear
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

libraries = pathlib.Path(__file__).resolve().parents[2] / "libs/ml"
folder = libraries / "tuners/fixtures/restuning-branches"
N, H = 5, 4


def adapter_case(model):
    parameters = {}
    for path in ["model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.1.mlp", "model.layers.1"]:
        width = model.config.hidden_size
        own = {"ln1.weight": (H, width), "ln1.bias": (H,), "ln2.weight": (width, H), "ln2.bias": (width,), "scaling": (width,)}
        own = {name: torch.nn.Parameter(0.3 * torch.randn(shape)) for name, shape in own.items()}

        def hook(_module, _inputs, output, own=own):
            y = output[0] if isinstance(output, tuple) else output
            y = y + own["scaling"] * linear(gelu(linear(y, own["ln1.weight"], own["ln1.bias"])), own["ln2.weight"], own["ln2.bias"])
            return (y, *output[1:]) if isinstance(output, tuple) else y

        model.get_submodule(path).register_forward_hook(hook)
        parameters |= {f"{path}.restuner_default.{name}": parameter for name, parameter in own.items()}
    config = {"stem_modules": ["model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.1.mlp", "model.layers.1"], "tuner_cfg": {"res_adapter": {"adapter_length": H, "adapter_weight": "scale_channel"}}}
    return parameters, config, {}


def prefix_case(model):
    heads, size = model.config.num_key_value_heads, model.config.hidden_size // model.config.num_attention_heads
    parameters = {f"model.layers.{layer}.self_attn.restuner_default.{part}": torch.nn.Parameter(torch.randn(1, heads, N, size)) for layer in range(model.config.num_hidden_layers) for part in ("prefix_k", "prefix_v")}

    def parallel(module, query, key, value, mask, scaling, **_others):
        path = f"model.layers.{module.layer_idx}.self_attn.restuner_default."
        groups = module.num_key_value_groups
        spread = lambda x: x.repeat_interleave(groups, 1).expand(query.shape[0], -1, -1, -1)
        length = query.shape[2]
        causal = torch.full((length, length), float("-inf")).triu(1)
        own = query @ spread(key).transpose(2, 3) * scaling + causal
        beside = query @ spread(parameters[path + "prefix_k"]).transpose(2, 3) * scaling
        most = torch.maximum(own.amax(-1, True), beside.amax(-1, True))
        ours, theirs = (own - most).exp().sum(-1, True), (beside - most).exp().sum(-1, True)
        t = theirs / (ours + theirs)
        output = (1 - t) * (own.softmax(-1) @ spread(value)) + t * (beside.softmax(-1) @ spread(parameters[path + "prefix_v"]))
        return output.transpose(1, 2).contiguous(), None

    modeling_llama.ALL_ATTENTION_FUNCTIONS["parallel"] = parallel
    model.config._attn_implementation = "parallel"
    config = {"stem_modules": [f"model.layers.{layer}.self_attn" for layer in range(model.config.num_hidden_layers)], "tuner_cfg": {"res_prefix": {"prompt_length": N}}}
    return parameters, config, {"position_ids": torch.arange(N, N + 24)[None].expand(2, -1)}


for case, build in (("adapter", adapter_case), ("prefix", prefix_case)):
    torch.manual_seed(4)
    model = LlamaForCausalLM.from_pretrained(libraries / "models/fixtures/tied", dtype=torch.float32).eval()
    parameters, config, inputs = build(model)
    target = folder / case
    target.mkdir(parents=True, exist_ok=True)
    save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, target / "adapter_model.safetensors", {"format": "pt"})
    (target / "adapter_config.json").write_text(json.dumps({"model_key_mapping": None, "swift_type": "RESTUNING", "use_bypass": False, "zero_init_last": True, **config}, indent=2, sort_keys=True))
    ids = torch.randint(0, 64, (2, 24))
    labels = torch.where(torch.rand(2, 24) < 0.6, ids, -100)
    output = model(input_ids=ids, labels=labels, use_cache=False, **inputs)
    output.loss.backward()
    golden = {"ids": ids.int(), "labels": labels.int(), "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    golden |= {"grad." + name: parameter.grad.clone() for name, parameter in parameters.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2, weight_decay=0.01)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=labels, use_cache=False, **inputs).loss
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    golden["losses"] = torch.tensor(losses)
    golden |= {"final." + name: parameter.detach() for name, parameter in parameters.items()}
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, target / "golden.safetensors")
    print(case, losses[0], losses[-1])
