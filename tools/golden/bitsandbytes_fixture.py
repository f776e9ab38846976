"""A tiny Llama as Transformers saves it in 4 bits with bitsandbytes, and what it computes: logits, and a LoRA step's loss and gradients by PEFT.

Needs torch, transformers, peft, bitsandbytes 0.50 (no GPU). Writes libs/ml/models/fixtures/bitsandbytes-<type>/.
"""

import pathlib
import shutil
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

fixtures = pathlib.Path(__file__).resolve().parents[2] / "libs/ml/models/fixtures"

for kind, double in (("nf4", True), ("fp4", False)):
    torch.manual_seed(7)
    # 40 columns: blocks of 64 run across rows; 24 * 40 weights end in a whole block, 8 * 40 do too.
    config = LlamaConfig(vocab_size=48, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        quantised = AutoModelForCausalLM.from_pretrained(
            plain,
            dtype=torch.float32,
            device_map="cpu",
            attn_implementation="eager",
            quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.float32),
        )
    folder = fixtures / f"bitsandbytes-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    quantised.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(0, config.vocab_size, (2, 12))
    golden = {"ids": ids.int()}
    with torch.no_grad():
        golden["logits"] = quantised.eval()(input_ids=ids).logits.contiguous()
    tuned = get_peft_model(quantised, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False))
    loss = tuned(input_ids=ids, labels=ids).loss
    loss.backward()
    golden["loss"] = loss.detach().reshape(1)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            plain_name = name.replace("base_model.model.", "", 1).replace(".default", "")
            golden[f"value.{plain_name}"] = parameter.detach().clone()
            golden[f"gradient.{plain_name}"] = parameter.grad.clone()
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, folder / "golden.safetensors")
