"""Prints the English conversations of the package chatterbot-corpus as chat rows, one JSON line each, in an order that depends on their text alone."""

import hashlib
import json
from importlib.resources import files

import yaml


def main() -> None:
    rows = []
    for path in sorted(files("chatterbot_corpus").joinpath("data", "english").iterdir(), key=lambda entry: entry.name):
        if not path.name.endswith(".yml"):
            continue
        for turns in yaml.safe_load(path.read_text(encoding="utf-8")).get("conversations", []):
            # Turns alternate, and the last must be the assistant's.
            texts = [str(turn).strip() for turn in turns][: len(turns) // 2 * 2]
            if len(texts) < 2 or not all(texts):
                continue
            messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]
            rows.append(json.dumps({"messages": messages}))
    for row in sorted(set(rows), key=lambda text: hashlib.sha256(text.encode()).hexdigest()):
        print(row)


if __name__ == "__main__":
    main()
