# The models of `./dev bench peers`: Hugging Face folders, and their weights as GGUF files.
"""Everything is made once, in the cache folder of the user: about 20 GB for both models.

smollm2: SmolLM2-135M-Instruct, real weights. 1.1b: the shape of TinyLlama, random weights that bf16
holds exactly, so that every precision starts from the same numbers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOLDER = CACHE / "shardwright/peers"
NAMES = ("smollm2", "1.1b")
BYTES_PER_WEIGHT = {"f32": 4.0, "bf16": 2.0, "int8": 1.0}
BYTES_IN_Q8_0 = 34 / 32  # 32 numbers and one f16 scale; others have one for a whole output channel
GGUF_TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
}


def making(path: Path) -> None:
    """Tells what takes long and is made only once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"  making {path}", file=sys.stderr, flush=True)


def huggingface(name: str) -> Path:
    """A folder of config.json and safetensors."""
    return _smollm2() if name == "smollm2" else _random_llama()


def _smollm2() -> Path:
    """Converted by Shardwright, which is installed in the other environment."""
    code = "from shardwright import huggingface; print(huggingface.smollm2())"
    command = [str(ROOT / ".venv/bin/python"), "-c", code]
    return Path(
        subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    )


def _random_llama() -> Path:
    folder = FOLDER / "1.1b"
    if folder.is_dir():
        return folder
    making(folder)
    config = transformers.LlamaConfig(
        hidden_size=2048,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        intermediate_size=5632,
        vocab_size=32000,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    torch.manual_seed(1)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    weights = {
        key: torch.empty(value.shape, dtype=torch.bfloat16).normal_(0, 0.02)
        if value.dim() == 2
        else torch.ones(value.shape, dtype=torch.bfloat16)
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(weights, assign=True)
    unfinished = folder.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    os.replace(unfinished, folder)
    return folder


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def matrix_count(folder: Path) -> int:
    """How many weights a token is multiplied with: those of all matrices, except an embedding that
    is no lm_head as well, of which a token reads one row."""
    config = config_of(folder)
    shapes = [piece.get_shape() for _, piece in _tensors(folder)]
    count = sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    tied = config["tie_word_embeddings"]
    return count if tied else count - config["vocab_size"] * config["hidden_size"]


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name, lazy tensor): its get_shape() reads nothing, [:] all of it."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = file.keys()
            yield from ((name, file.get_slice(name)) for name in names)


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(key: str) -> str:
    stem = key.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return f"{_GGUF_NAMES[stem]}.weight"
    layer, _, rest = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_GGUF_NAMES[rest]}.weight"


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """weight (heads * D, columns): transformers keeps a head's two rotary halves one after another,
    llama.cpp their rows in turn."""
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows, columns)


def gguf_file(name: str, precision: str) -> Path:
    """The model for llama.cpp: matrices in `precision`, norms in f32, tokens without their text."""
    path = FOLDER / f"{name}-{precision}.gguf"
    if path.exists():
        return path
    folder = huggingface(name)
    config = config_of(folder)
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    making(path)
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "llama", use_temp_file=True)
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads["q"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for key, piece in _tensors(folder):
        weight = piece[:].float().numpy()
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _interleaved(weight, heads[key.split(".")[-2][0]])
        kind = GGUF_TYPES["f32" if weight.ndim == 1 else precision]
        writer.add_tensor(_gguf_name(key), gguf.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(unfinished, path)
    return path
