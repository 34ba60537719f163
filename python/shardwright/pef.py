# compile(): a module, an exported program or a file -> a PEF.
from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ShardwrightError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from .capture import Inputs


@dataclass(frozen=True)
class Pef:
    """A compiled file."""

    path: Path
    size_bytes: int
    graphs: tuple[str, ...]
    plans: tuple[dict[str, Any], ...]  # {"n_chips": 4, "mode": "weight"}, ...

    def __fspath__(self) -> str:
        return str(self.path)


def compile(
    model: torch.nn.Module | ExportedProgram | str | os.PathLike,
    inputs: Inputs | None = None,
    *,
    pef_name: str | None = None,
    tensor_parallel: str | None = None,
    n_chips: int | Sequence[int] | None = None,
    inference: bool = False,
    precision: str | None = None,
    optimization: int | None = None,
    optimization_rules: str | os.PathLike | None = None,
    progress: Callable[[str, float], None] | None = None,
    **options: Any,
) -> Pef:
    """Compiles `model` into `out/<pef_name>/<pef_name>.pef`.

    `model`: an nn.Module with example `inputs` (a dict by name, or a tuple; their shapes are
    compiled in), an ExportedProgram, the path of a .pt2 or .onnx file, or of a Hugging Face folder.
    `tensor_parallel`: "batch", "weight", "auto" or "none".
    `n_chips`: a number, or several for one PEF with several plans.
    `precision`: "f32" or "bf16" converts a module's parameters in place; "int8" stores the weights
    of linears and embeddings in one byte each, and leaves what the model computes in.
    `optimization`: 0 every operator alone, 1 fused by rules, 3 (default) by the compiler itself.
    `optimization_rules`: a YAML file of fusion rules for optimization=1 (default: the built-in).
    `progress(stage, share done)`: called along the way.
    `options`: the command line's other options with underscores (`batch_size`, `seq`,
    `output_folder`, `arch`, ...); names, defaults and messages are the command line's.
    """
    from . import _core

    options.update(
        pef_name=pef_name,
        tensor_parallel=tensor_parallel,
        n_chips=n_chips,
        inference=inference,
        precision=precision,
        optimization=optimization,
        optimization_rules=optimization_rules,
    )
    given = {name: _plain(value) for name, value in options.items() if value is not None}
    os.environ.setdefault("SHARDWRIGHT_PYTHON", sys.executable)  # what captures a folder
    with tempfile.TemporaryDirectory(prefix="shardwright-") as folder:
        path = _as_file(model, inputs, given, Path(folder) / "model.pt2")
        result = json.loads(_core.compile(str(path), json.dumps(given), progress))
    return Pef(
        Path(result["path"]), result["size_bytes"], tuple(result["graphs"]), tuple(result["plans"])
    )


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if isinstance(value, (str, int, float, bool)) else list(value)


def _as_file(model: Any, inputs: Inputs | None, given: dict[str, Any], path: Path) -> Path:
    """A file for the command line; takes out of `given` what capturing answers."""
    if isinstance(model, (str, os.PathLike)):
        if inputs is not None:
            raise ShardwrightError(
                "example inputs go with an nn.Module; a file has its shapes already"
            )
        return Path(model)
    from torch.export import ExportedProgram

    from . import capture

    if isinstance(model, ExportedProgram):
        return capture.save(capture.to_core_form(model), path)
    if inputs is None:
        raise ShardwrightError(
            "an nn.Module needs example inputs, for example "
            'compile(model, {"input_ids": torch.zeros(1, 128, dtype=torch.long)}, ...)'
        )
    if given.get("precision", "int8") != "int8":
        dtype = capture.dtype_of(given.pop("precision"))
        model, inputs = capture.cast(model, dtype), capture.cast_inputs(inputs, dtype)
    return capture.save(capture.capture_forward(model, inputs), path)
