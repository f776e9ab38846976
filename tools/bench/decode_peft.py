"""The reference of `npm run bench -- decode`: greedy text with Hugging Face transformers and PEFT on torch, with its key/value cache.

Reads one JSON request per line, {"batch", "prompt", "tokens", "adapted"}, and answers each with {"seconds"}.
"""

import argparse
import json
import sys
import time

import torch
from peft import PeftModel
from transformers import LlamaForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--adapter", required=True, help="PEFT folder of the adapter")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    plain = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32), args.adapter).eval()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        model = adapted if request["adapted"] else plain
        ids = torch.arange(request["batch"] * request["prompt"]).reshape(request["batch"], -1)
        tokens = request["tokens"]
        started = time.perf_counter()
        with torch.inference_mode():
            text = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens, pad_token_id=0)
        seconds = time.perf_counter() - started
        if text.shape[1] != request["prompt"] + tokens:
            raise SystemExit(f"asked for {tokens} new tokens, got {text.shape[1] - request['prompt']}")
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
