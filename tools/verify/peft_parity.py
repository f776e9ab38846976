"""Compares logits written by Tunefleet's `logits` command with those of Hugging Face Transformers and PEFT.

Ours may be computed in any dtype; the reference is in f32. For bf16 the reference is computed in bf16, too, and its distance from both is told.
The file holds, for every text i, `ids.<i>` [T] int32 and `logits.<i>` [T, V] float32. Prints one JSON line.
"""

import argparse
import json

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True, help="Hugging Face model folder")
    parser.add_argument("--adapter", help="PEFT adapter folder; absent: the base alone")
    parser.add_argument("--ours", required=True, help="safetensors file with ids.<i> and logits.<i>")
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    ours = load_file(args.ours)
    texts = sum(name.startswith("ids.") for name in ours)
    ids = [ours[f"ids.{i}"].long()[None] for i in range(texts)]
    mine = [ours[f"logits.{i}"] for i in range(texts)]
    theirs = logits_of(load(args, "f32"), ids)
    for i, (a, b) in enumerate(zip(theirs, mine)):
        if a.shape != b.shape:
            raise SystemExit(f"text {i}: shapes differ, theirs {tuple(a.shape)}, ours {tuple(b.shape)}")
    report = {
        "texts": texts,
        "positions": sum(a.shape[0] for a in theirs),
        "max_abs_difference": largest(theirs, mine),
        "same_top_token": sum((a.argmax(-1) == b.argmax(-1)).sum().item() for a, b in zip(theirs, mine)) / sum(a.shape[0] for a in theirs),
    }
    if args.dtype != "f32":
        rounded = logits_of(load(args, args.dtype), ids)
        report["from_reference_in_dtype"] = largest(rounded, mine)
        report["reference_from_itself"] = largest(rounded, theirs)
    print(json.dumps(report))


def load(args: argparse.Namespace, dtype: str) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=DTYPES[dtype], attn_implementation="eager")
    if args.adapter:
        model = PeftModel.from_pretrained(model, args.adapter)
    return model.eval()


def logits_of(model: torch.nn.Module, ids: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(input_ids=one).logits[0].float() for one in ids]


def largest(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    # Not max() over Python numbers: NaN compares false with everything and would slip through.
    return torch.stack([(a - b).abs().max() for a, b in zip(first, second)]).max().item()


if __name__ == "__main__":
    main()
