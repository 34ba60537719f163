# Converts a GGUF file of a llama model to a Hugging Face folder, once.
from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from .errors import ShardwrightError

_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GGUF_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_folder() -> Path:
    """For converted models: $SHARDWRIGHT_CACHE, or shardwright in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardwright"
    return Path(os.environ.get("SHARDWRIGHT_CACHE") or fallback)


def from_gguf(folder: Path) -> Path:
    """The GGUF file in `folder` as a folder of safetensors in the cache, converted once."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ShardwrightError(
            f"'{folder}' holds no safetensors file and {len(files)} GGUF files; exactly one works",
            code=5,
        )
    source = files[0]
    target = cache_folder() / f"{source.stem}-{source.stat().st_size}"
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = tempfile.mkdtemp(dir=target.parent, prefix=".unfinished-")
    try:
        _llama_of_gguf(source).save_pretrained(unfinished)
        transformers.AutoTokenizer.from_pretrained(folder, gguf_file=source.name).save_pretrained(
            unfinished
        )
        os.replace(unfinished, target)
    except OSError:
        # Another process may have been first: its result is ours.
        if not (target / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _llama_of_gguf(path: Path) -> transformers.LlamaForCausalLM:
    try:
        from gguf import GGUFReader, dequantize
    except ImportError as error:
        raise ShardwrightError(f"'{path.name}' needs the package gguf: pip install gguf") from error
    reader = GGUFReader(path)
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("tokenizer.ggml.to")
    }
    if fields["general.architecture"] != "llama":
        raise ShardwrightError(
            f"'{path.name}' holds a {fields['general.architecture']} model; of GGUF only llama is "
            "read, others work as safetensors",
            code=3,
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _llama_config(
        fields,
        vocab=int(tensors["token_embd.weight"].shape[1]),
        tied="output.weight" not in tensors,
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for name, tensor in tensors.items():
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        kind = name.split(".")[-2]
        weights[_huggingface_name(name)] = (
            _unpermute(weight, heads[kind]) if kind in heads else weight
        )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    missing, unknown = model.load_state_dict(weights, strict=False, assign=True)
    missing = set(missing) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if missing or unknown:
        raise ShardwrightError(
            f"'{path.name}' is no plain llama model: {sorted(missing)} missing, {sorted(unknown)} "
            "unknown; use safetensors",
            code=3,
        )
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # inv_freq is not in the file
    return model.eval()


def _llama_config(fields: dict, vocab: int, tied: bool) -> transformers.LlamaConfig:
    value = {name.removeprefix("llama."): content for name, content in fields.items()}
    return transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=value["embedding_length"],
        intermediate_size=value["feed_forward_length"],
        num_hidden_layers=value["block_count"],
        num_attention_heads=value["attention.head_count"],
        num_key_value_heads=value.get("attention.head_count_kv", value["attention.head_count"]),
        max_position_embeddings=value["context_length"],
        rms_norm_eps=value["attention.layer_norm_rms_epsilon"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": value.get("rope.freq_base", 10000.0),
        },
        tie_word_embeddings=tied,
        bos_token_id=value.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=value.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=value.get("tokenizer.ggml.padding_token_id"),
        dtype="float32",
    )


def _huggingface_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; else the name itself."""
    parts = name.split(".")
    if parts[0] == "blk" and parts[2] in _GGUF_LAYER:
        return f"model.layers.{parts[1]}.{_GGUF_LAYER[parts[2]]}.{parts[3]}"
    return f"{_GGUF_TOP[parts[0]]}.{parts[1]}" if parts[0] in _GGUF_TOP else name


def _unpermute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """weight (heads * D, columns): llama.cpp interleaves a head's two rotary halves, transformers
    has them one after another."""
    rows, columns = weight.shape
    split = weight.reshape(heads, rows // heads // 2, 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)
