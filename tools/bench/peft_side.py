"""The reference of `npm run bench -- peft`: the same tuner, shape and examples with Hugging Face PEFT and torch. Prints one JSON line.

Random weights of the shape. `padding`: random batches, each padded to its longest row, with an attention mask. `packing`: TRL's best-fit-decreasing packing
into rows of 1024 tokens, one row per step, positions reset at every example, which is how transformers keeps packed examples apart.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
PACKED_TOKENS = 1024
IGNORED_LABEL = -100


def peak_rss_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise SystemExit("this system does not report the peak memory of a process (VmHWM in /proc/self/status)")


def build_model(folder: str, tuner: dict, dtype: torch.dtype):
    kind, fields = tuner["kind"], {name: value for name, value in tuner.items() if name != "kind"}
    if kind == "qlora":
        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, dtype=dtype, device_map="cpu")
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model = LlamaForCausalLM(LlamaConfig.from_json_file(str(Path(folder) / "config.json"))).to(dtype)
    model.config.use_cache = False
    if kind in ("lora", "qlora"):
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **fields))
    elif kind == "prompt-tuning":
        model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", **fields))
    elif kind != "full":
        raise SystemExit(f"no reference for the tuner {kind}")
    return model.train()


def padded_batches(examples: list, batch: int):
    order = list(range(len(examples)))
    random.Random(2).shuffle(order)
    for begin in range(0, len(order) - batch + 1, batch):
        rows = [examples[index] for index in order[begin : begin + batch]]
        width = max(len(ids) for ids, _ in rows)
        pad = lambda values, filler: torch.tensor([[*row, *[filler] * (width - len(row))] for row in values])
        yield {
            "input_ids": pad([ids for ids, _ in rows], 0),
            "labels": pad([labels for _, labels in rows], IGNORED_LABEL),
            "attention_mask": pad([[1] * len(ids) for ids, _ in rows], 0),
        }, sum(len(ids) for ids, _ in rows)


def packed_batches(examples: list):
    from datasets import Dataset
    from trl import pack_dataset

    fitting = [(ids[:PACKED_TOKENS], labels[:PACKED_TOKENS]) for ids, labels in examples]
    packed = pack_dataset(Dataset.from_dict({"input_ids": [ids for ids, _ in fitting], "labels": [labels for _, labels in fitting]}), PACKED_TOKENS, "bfd")
    for row in packed:
        positions, labels = [], list(row["labels"])
        for length in row["seq_lengths"]:
            # Nothing predicts the first token of an example.
            labels[len(positions)] = IGNORED_LABEL
            positions += range(length)
        yield {"input_ids": torch.tensor([row["input_ids"]]), "labels": torch.tensor([labels]), "position_ids": torch.tensor([positions])}, len(positions)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("options", help="JSON: model, data, tuner, dtype, batch, steps, threads, batching")
    options = json.loads(parser.parse_args().options)

    torch.set_num_threads(options["threads"])
    torch.manual_seed(1)
    model = build_model(options["model"], options["tuner"], DTYPES[options["dtype"]])
    data = json.loads(Path(options["data"]).read_text(encoding="utf-8"))
    examples = [(ids, [token if learned else IGNORED_LABEL for token, learned in zip(ids, mask)]) for ids, mask in zip(data["ids"], data["learned"])]
    batches = packed_batches(examples) if options["batching"] == "packing" else padded_batches(examples, options["batch"])
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0.0)

    seconds, tokens, losses = [], [], []
    for batch, token_count in batches:
        if len(seconds) == options["steps"]:
            break
        started = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
        tokens.append(token_count)
    result = {"step_seconds": seconds, "step_tokens": tokens, "losses": losses, "trainable_parameters": sum(p.numel() for p in trainable), "peak_rss_bytes": peak_rss_bytes()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
