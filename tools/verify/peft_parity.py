"""Compares logits written by Tunefleet's `logits` command with those of Hugging Face Transformers and PEFT.

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
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=DTYPES[args.dtype], attn_implementation="eager")
    if args.adapter:
        model = PeftModel.from_pretrained(model, args.adapter)
    model.eval()

    ours = load_file(args.ours)
    texts = sum(name.startswith("ids.") for name in ours)
    worst = 0.0
    same_top = 0
    positions = 0
    with torch.no_grad():
        for i in range(texts):
            ids = ours[f"ids.{i}"].long()[None]
            theirs = model(input_ids=ids).logits[0].float()
            mine = ours[f"logits.{i}"]
            if theirs.shape != mine.shape:
                raise SystemExit(f"text {i}: shapes differ, theirs {tuple(theirs.shape)}, ours {tuple(mine.shape)}")
            difference = (theirs - mine).abs().max().item()
            # NaN compares false with everything, so it must not slip through max().
            worst = difference if difference != difference else max(worst, difference)
            same_top += (theirs.argmax(-1) == mine.argmax(-1)).sum().item()
            positions += ids.shape[1]
    print(json.dumps({"texts": texts, "positions": positions, "max_abs_difference": worst, "same_top_token": same_top / positions}))


if __name__ == "__main__":
    main()
