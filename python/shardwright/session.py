# load() and Session: a PEF on n chips, with NumPy or torch arrays in and out.
from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ShardwrightError

if TYPE_CHECKING:
    from .text import Tokenizer

# NumPy's names that differ from ours; torch's are the same, bfloat16 apart.
_DTYPES = {
    "float32": "f32",
    "float16": "f16",
    "float64": "f64",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "bool",
}


def load(
    pef: str | os.PathLike,
    *,
    n_chips: int | None = None,
    chips: str = "threads",
    threads_per_chip: int | None = None,
    deadline_ms: int | None = None,
) -> Session:
    """Loads a PEF onto its chips.

    `n_chips`: one of its plans (default: the first). `chips`: "threads" of this process.
    `threads_per_chip`: default: the allowed cores, divided among the chips.
    `deadline_ms`: how long a chip waits for the others before the run ends with a message.
    """
    return Session(
        os.fspath(pef),
        n_chips=n_chips,
        chips=chips,
        threads_per_chip=threads_per_chip,
        deadline_ms=deadline_ms,
    )


class Session:
    """A loaded PEF. Holds parameters and buffers on the chips until it is deleted."""

    def __init__(self, path: str, **options: Any):
        from . import _core

        self._core = _core.Session(path, _json_of_given(options))
        # Of the last `generate`: time_to_first_token_s, prompt_tokens_per_s, tokens_per_s, and the
        # tokens and seconds that they come from.
        self.stats: dict[str, Any] = {}

    def run(self, inputs: Mapping[str, Any], graph: str | None = None) -> dict[str, Any]:
        """Runs `graph` (default: the first): arrays by input name -> arrays by output name.

        Shapes and dtypes are those that were compiled in. The outputs are torch tensors if an input
        is one, else NumPy arrays, where bf16 becomes float32.
        """
        as_torch = any(_is_torch(value) for value in inputs.values())
        outputs = self._core.run(
            {name: to_core(name, value) for name, value in inputs.items()}, graph
        )
        return {name: from_core(value, as_torch) for name, value in outputs.items()}

    def train_step(self, inputs: Mapping[str, Any], lr: float = 1e-3) -> float:
        """One step of the optimizer on `inputs` with this learning rate; returns the loss before
        it. The PEF was compiled without `inference`; parameters and the optimizer's state change on
        the chips.
        """
        if not any(graph["name"] == "train" for graph in self.info["graphs"]):
            raise ShardwrightError(
                "this PEF does not train: compile the model with its loss and without "
                "inference=True"
            )
        outputs = self.run({**inputs, "lr": np.float32(lr)}, "train")
        return float(outputs["loss"])

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays by name: "loss", and the gradient of each parameter that is trained, under its
        name. The PEF was compiled with `optimizer="none"`; nothing changes on the chips.
        """
        if not any(graph["name"] == "gradients" for graph in self.info["graphs"]):
            raise ShardwrightError(
                'this PEF gives no gradients: compile the model with optimizer="none"'
            )
        return self.run(inputs, "gradients")

    def parameters(self, *, as_torch: bool = False) -> dict[str, Any]:
        """Whole arrays by name, gathered from the chips: NumPy (bf16 as float32), or torch."""
        return {name: from_core(value, as_torch) for name, value in self._core.parameters().items()}

    def generate(
        self,
        prompts: Any,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop_tokens: Sequence[int] | None = None,
    ) -> Iterator[Any]:
        """Continues prompts token by token; the PEF was compiled with `generate=True`.

        `prompts`: text (if the PEF holds a tokenizer), token ids (a list, or an array (tokens,)),
        or a list of such, at most one a slot (the batch size). Yields the tokens of one prompt, or
        (index of the prompt, token) of several. A sequence ends after `max_new_tokens`, at a token
        of `stop_tokens` (default: those of the tokenizer; it is the last that is given), or when
        the cache is full.
        `temperature`: 0 always takes the likeliest token. `top_k`, `top_p`: draw from the k
        likeliest, or the likeliest of that probability together. `repetition_penalty`: above 1
        makes tokens that were there before less likely. The same `seed` gives the same text.
        """
        from .generation import generate

        sampling = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        return generate(self, prompts, max_new_tokens, sampling, stop_tokens)

    def new_generator(self) -> Any:
        """What `generate` and the server step through (`_core.Generator`)."""
        from . import _core

        return _core.Generator(self._core)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the PEF holds: encode, decode, chat, stop_tokens."""
        from .text import Tokenizer

        return Tokenizer(self.files)

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """What goes along in the PEF, by name ("tokenizer.json")."""
        from . import _core

        return _core.files(self.info["path"])

    def measure(
        self, *, graph: str | None = None, runs: int | None = None, warmup: int | None = None
    ) -> dict[str, Any]:
        """Times `graph`: seconds a run (median, p90, p99) and the share of each step."""
        options = _json_of_given({"graph": graph, "runs": runs, "warmup": warmup})
        return json.loads(self._core.measure(options))

    def explain(self, layer: int | None = None) -> dict[str, Any]:
        """Why each operator is split as it is, what is transferred for it, and what the nearest
        alternatives would have cost, as `shardwright explain --json` says it. `layer`: one alone;
        default: all, layers that are alike once."""
        from . import _core

        info = self.info
        return json.loads(_core.explain(info["path"], info["n_chips"], layer))

    @property
    def info(self) -> dict[str, Any]:
        """Graphs with their inputs and outputs, plans, and the bytes that each chip holds."""
        return json.loads(self._core.info())

    @property
    def n_chips(self) -> int:
        return self.info["n_chips"]


def _json_of_given(options: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in options.items() if value is not None})


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_core(name: str, value: Any) -> tuple[np.ndarray, str]:
    """An input as the compiled module takes it: contiguous, and its dtype's name."""
    if _is_torch(value):
        import torch

        value = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16:
            return value.view(torch.int16).numpy().view(np.uint16), "bf16"
        value = value.numpy()
    array = np.asarray(value, order="C")
    if array.dtype.name not in _DTYPES:
        raise ShardwrightError(
            f"input '{name}' has dtype {array.dtype}; these work: {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[array.dtype.name]
    return (array.view(np.uint16) if dtype == "bf16" else array), dtype


def from_core(value: tuple[np.ndarray, str], as_torch: bool) -> Any:
    """The inverse of to_core."""
    array, dtype = value
    if as_torch:
        import torch

        tensor = torch.from_numpy(array.view(np.int16) if dtype == "bf16" else array)
        return tensor.view(torch.bfloat16) if dtype == "bf16" else tensor
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bf16" else array
