"""Writes libs/ml/export/fixtures/gguf.json: for every decoder fixture the tensors of its GGUF file with type, shape and SHA-256 of the stored bytes.

Names come from the gguf package's own map, blocks from its own quantisers; what llama.cpp's converter does to values (rotary rows of Llama, norms of Gemma,
turned maps of GPT-2) is written down here a second time. Needs gguf, numpy and safetensors. Run: python tools/golden/gguf_fixture.py
"""

import hashlib
import json
import pathlib

import gguf
import numpy as np
from safetensors import safe_open

root = pathlib.Path(__file__).resolve().parents[2]
ARCHES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "phi3": "PHI3", "gemma2": "GEMMA2", "gemma3_text": "GEMMA3", "gpt2": "GPT2"}
TYPES = [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0]


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """As LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def tensors(folder: pathlib.Path, config: dict) -> dict[str, np.ndarray]:
    kind = config["model_type"]
    blocks = config.get("num_hidden_layers", config.get("n_layer"))
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, ARCHES[kind]), blocks)
    result = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():
                value = opened.get_tensor(key).float().numpy()
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                assert name is not None, key
                if kind in ("llama", "mistral") and ".q_proj" in key:
                    value = permute(value, config["num_attention_heads"])
                if kind in ("llama", "mistral") and ".k_proj" in key:
                    value = permute(value, config["num_key_value_heads"])
                if kind.startswith("gemma") and key.endswith("norm.weight"):
                    value = value + 1
                if kind == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
                    value = value.T
                result[name] = np.ascontiguousarray(value)
    return result


def stored(value: np.ndarray, name: str, kind: gguf.GGMLQuantizationType) -> list:
    if value.ndim < 2 or name.startswith("position_embd"):
        kind = gguf.GGMLQuantizationType.F32
    elif kind == gguf.GGMLQuantizationType.Q8_0 and value.shape[-1] % 32 != 0:
        kind = gguf.GGMLQuantizationType.F16
    data = gguf.quants.quantize(value, kind)
    return [int(kind), list(value.shape), hashlib.sha256(data.tobytes()).hexdigest()]


golden = {}
for folder in sorted((root / "libs/ml/models/fixtures").iterdir()):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] not in ARCHES:
        continue
    found = tensors(folder, config)
    golden[folder.name] = {kind.name: {name: stored(value, name, kind) for name, value in sorted(found.items())} for kind in TYPES}
(root / "libs/ml/export/fixtures/gguf.json").write_text(json.dumps(golden, indent=1) + "\n")
