"""Writes libs/ml/tuners/fixtures/deep-prompt-tuning/<base>: SWIFT's Prompt over the tiny decoders of the models library (run llama_fixture.py and
decoder_fixtures.py first), with logits, loss and every gradient, and over GPT-2 the losses of ten steps of AdamW and what they end with.

Decoders of Transformers do not run with it as a whole: their last view, rotary tables and masks are made for the text alone. So blocks are run one by one here: GPT-2's
as SWIFT wraps them; those with rotary positions with SWIFT's prompt module on what enters them, and positions and mask for all tokens.
Needs torch, transformers, ms-swift and safetensors. Run: python tools/golden/deep_prompt_fixture.py
"""

import pathlib
import shutil

import torch
from safetensors.torch import save_file
from swift.tuners import Swift
from swift.tuners.prompt import PromptConfig, PromptModule
from tiny_decoder import fixtures
from transformers import AutoModelForCausalLM
from transformers.masking_utils import create_causal_mask

folder = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/tuners/fixtures/deep-prompt-tuning"
N, T, STEPS, RATE = 5, 20, 10, 1e-2


def text() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 64, (2, T))
    labels = torch.where(torch.rand(2, T) < 0.6, ids, -100)
    labels[:, 0] = -100
    return ids, labels


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def golden_of(run, parameters: dict[str, torch.Tensor], steps: int) -> dict[str, torch.Tensor]:
    ids, labels = text()
    logits = run(ids)
    loss = loss_of(logits, labels)
    loss.backward()
    golden = {"ids": ids.int(), "labels": labels.int(), "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    golden |= {f"value.{name}": parameter.detach().clone() for name, parameter in parameters.items()}
    golden |= {f"grad.{name}": parameter.grad.clone() for name, parameter in parameters.items()}
    if steps > 0:
        optimiser = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.01)
        losses = []
        for _ in range(steps):
            optimiser.zero_grad()
            loss = loss_of(run(ids), labels)
            loss.backward()
            losses.append(loss.item())
            optimiser.step()
        golden["losses"] = torch.tensor(losses)
        golden |= {f"final.{name}": parameter.detach() for name, parameter in parameters.items()}
    return golden


def write(base: str, golden: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / base / "golden.safetensors")
    print(base, golden["loss"].item())


def gpt2() -> None:
    torch.manual_seed(41)
    target = folder / "gpt2"
    shutil.rmtree(target, ignore_errors=True)
    plain = AutoModelForCausalLM.from_pretrained(fixtures / "gpt2", dtype=torch.float32, attn_implementation="sdpa")
    config = PromptConfig(dim=32, target_modules=r"transformer\.h\.\d+", embedding_pos=0, prompt_length=N)
    model = Swift.prepare_model(plain, config).eval()
    model.save_pretrained(target)
    for path in (target / "default").iterdir():
        path.rename(target / path.name)
    for path in target.iterdir():
        if path.name not in ("adapter_config.json", "adapter_model.safetensors"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
    parameters = {name.removeprefix("base_model.").removeprefix("model."): p for name, p in model.named_parameters() if p.requires_grad}
    decoder, head = model.base_model.transformer, model.base_model.lm_head

    def run(ids: torch.Tensor) -> torch.Tensor:
        hidden = decoder.wte(ids) + decoder.wpe(torch.arange(T))
        for block in decoder.h:
            hidden = block(hidden)
        return head(decoder.ln_f(hidden))[:, N:]

    write("gpt2", golden_of(run, parameters, STEPS))


def rotary(base: str, prompted: list[int]) -> None:
    torch.manual_seed(42)
    target = folder / base
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(fixtures / base, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)
    prompts = {layer: PromptModule(model.config.hidden_size, layer, "default", f"model.layers.{layer}", N) for layer in prompted}
    for prompt in prompts.values():
        prompt.set_activation("default", True)

    def run(ids: torch.Tensor) -> torch.Tensor:
        hidden = model.model.embed_tokens(ids)
        positions = torch.arange(N + T).unsqueeze(0)
        wide = torch.zeros(ids.shape[0], N + T, hidden.shape[-1])
        mask = create_causal_mask(config=model.config, inputs_embeds=wide, attention_mask=None, cache=None, position_ids=positions)
        tables = model.model.rotary_emb(wide, position_ids=positions)
        for layer, block in enumerate(model.model.layers):
            hidden = prompts[layer](hidden) if layer in prompts else hidden
            hidden = block(hidden, attention_mask=mask, position_embeddings=tables, position_ids=positions)
        return model.lm_head(model.model.norm(hidden))[:, N:]

    write(base, golden_of(run, {f"model.layers.{layer}.prompt_default.prompt_token": prompt.prompt_token for layer, prompt in prompts.items()}, 0))


gpt2()
rotary("tied", [0, 1])
rotary("qwen3", [0])
