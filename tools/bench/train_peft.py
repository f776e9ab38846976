"""The reference of `npm run bench -- train`: LoRA with Hugging Face PEFT and torch on the SmolLM2-135M shape.

Random weights, all tokens labelled, equal rows without padding. Prints one JSON line.
"""

import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def peak_rss_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise SystemExit("this system does not report the peak memory of a process (VmHWM in /proc/self/status)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="config.json of the model shape")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    config = LlamaConfig.from_json_file(args.config)
    model = LlamaForCausalLM(config).to(DTYPES[args.dtype])
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0.0)
    generator = torch.Generator().manual_seed(2)

    seconds = []
    losses = []
    for _ in range(args.steps):
        ids = torch.randint(0, config.vocab_size, (args.batch, args.length), generator=generator)
        started = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    print(json.dumps({"step_seconds": seconds, "losses": losses, "trainable_parameters": sum(p.numel() for p in trainable), "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
