"""What bitsandbytes makes of small matrices on the CPU: packed codes, scales, doubly quantised scales, and the weights they stand for.

Needs bitsandbytes 0.50 (no GPU), torch, safetensors. Writes libs/ml/formats/fixtures/four-bit.safetensors.
"""

import pathlib

import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file

torch.manual_seed(11)
target = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/formats/fixtures/four-bit.safetensors"

matrices = {
    # 260 blocks: two blocks of scales; the second matrix ends in a short block; the third has blocks of zeros and weights on midpoints.
    "normal": torch.randn(65, 256) * 0.05 * (1 + torch.rand(65, 1)),
    "short": torch.randn(5, 30) * 3,
    "edges": torch.cat([torch.zeros(2, 64), torch.ones(1, 64), torch.linspace(-1, 1, 64)[None], -torch.ones(1, 64) * 0.5]),
}

golden = {"dynamic_map": F.create_dynamic_map()}
for name, matrix in matrices.items():
    golden[name] = matrix
    for kind in ("nf4", "fp4"):
        packed, state = F.quantize_4bit(matrix, quant_type=kind, compress_statistics=False)
        golden |= {f"{name}.{kind}.packed": packed.flatten(), f"{name}.{kind}.absmax": state.absmax}
        if name != "normal":
            golden[f"{name}.{kind}.weights"] = F.dequantize_4bit(packed, state)
        packed, state = F.quantize_4bit(matrix, quant_type=kind, compress_statistics=True)
        golden |= {
            f"{name}.{kind}.double.absmax": state.absmax,
            f"{name}.{kind}.double.nested_absmax": state.state2.absmax,
            f"{name}.{kind}.double.offset": state.offset.reshape(1),
        }
        if kind == "nf4":
            golden[f"{name}.{kind}.double.weights"] = F.dequantize_4bit(packed, state)
save_file({name: tensor.contiguous() for name, tensor in golden.items()}, target)
