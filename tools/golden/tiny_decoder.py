"""A tiny random decoder and what Transformers computes for it; shared by the fixture scripts of the models library."""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

fixtures = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/models/fixtures"


def write(name: str, model, dtype: torch.dtype, greedy_tokens: int = 0, centred_norms: bool = False, **saving) -> None:
    """Fills `model` with random weights that make every part matter, saves it to fixtures/<name>, and beside it its logits for two random rows and,
    if asked for, the tokens it continues the first row's first eight with."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                is_norm = key.endswith(".weight")
                parameter.copy_((1.0 if is_norm and not centred_norms else 0.0) + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    model = model.to(dtype)
    folder = fixtures / name
    model.save_pretrained(folder, **saving)
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Read back: casting a model in memory would round its rotary frequencies, too.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, model.config.vocab_size, (2, 24))
    with torch.no_grad():
        golden = {"ids": ids.int(), "logits": model(input_ids=ids).logits.contiguous()}
        if greedy_tokens > 0:
            golden["greedy"] = greedy(model, ids[:1, :8], greedy_tokens).int()
    save_file(golden, folder / "golden.safetensors")


def greedy(model, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """[tokens], by full forward passes: what a cache must reproduce."""
    start = ids.shape[1]
    for _ in range(tokens):
        best = model(input_ids=ids).logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, best], dim=1)
    return ids[0, start:].contiguous()
