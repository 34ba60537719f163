# The door of a model script: `python model.py compile|run|test|measure-performance ...`.
"""A model script defines a model and hands over to the command line:

import shardwright.app

def model(args):                      # args.batch_size, args.arch, args.precision, ... and your own
options
    return MyModel(), {"x": torch.zeros(args.batch_size, 24)}

if __name__ == "__main__":
    shardwright.app.main(model)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from . import capture
from .__main__ import as_text
from .errors import ShardwrightError
from .session import to_core

# What `args` holds besides the options that were given.
_DEFAULTS = {
    "batch_size": 1,
    "seq": None,
    "precision": None,
    "arch": None,
    "generate": False,
    "train": False,
    "prompts": None,
}

Model = Callable[[argparse.Namespace], tuple[torch.nn.Module, capture.Inputs]]


def main(
    model: Model,
    loss: Callable | None = None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Runs the command line for the model that `model(args)` returns with example inputs, and
    exits.

    `add_arguments(parser)` adds options of the script's own; they must be given to each command
    that needs the model. `loss(outputs, inputs)`: what training minimises; inference doesn't use
    it.
    """
    from . import _core

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    if add_arguments:
        add_arguments(parser.add_argument_group(f"options of {_script()}"))
    own, rest = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory(prefix="shardwright-") as folder:
        status = _core.cli(as_text([_script(), *rest]), provider(model, own, Path(folder), loss))
    if add_arguments and {"-h", "--help"} & set(rest):
        print("\n" + parser.format_help().strip())
    sys.exit(status)


class _WithLoss(torch.nn.Module):
    """The model with the script's loss as its only output."""

    def __init__(self, module: torch.nn.Module, loss: Callable):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.loss(self.module(**inputs), inputs)}


def provider(
    model: Model, own: argparse.Namespace, folder: Path, loss: Callable | None = None
) -> Callable[[str], str]:
    """What the command line calls when it needs the model (`_core.pyi`); files go to `folder`."""

    def path_of(options_json: str) -> str:
        options = json.loads(options_json)
        want = options.pop("want", "model")
        args = argparse.Namespace(**{**_DEFAULTS, **options, **vars(own)})
        module, inputs = _called(model, args)
        if args.precision:
            dtype = capture.dtype_of(args.precision)
            module, inputs = capture.cast(module, dtype), capture.cast_inputs(inputs, dtype)
        if want == "reference":
            return str(write_reference(module, inputs, folder / "reference"))
        if args.train and loss:
            if not isinstance(inputs, dict):
                raise ShardwrightError(
                    "loss(outputs, inputs) needs the example inputs by name: return a dict"
                )
            module = _WithLoss(module, loss)
        if args.generate:
            program = _capture_generate(module, args)
        else:
            program = capture.capture_forward(module, inputs)
        return str(capture.save(program, folder / "model.pt2"))

    return path_of


def _called(model: Model, args: argparse.Namespace) -> tuple[torch.nn.Module, capture.Inputs]:
    torch.manual_seed(0)  # each command calls model(args): random weights must be the same weights
    try:
        result = model(args)
    except Exception as error:
        if not isinstance(error, ShardwrightError):
            traceback.print_exc()
        raise ShardwrightError(f"model(args) in {_script()} failed: {error}") from error
    if not (
        isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], torch.nn.Module)
    ):
        raise ShardwrightError(
            f"model(args) in {_script()} must return an nn.Module and its example inputs, "
            'for example: return MyModel(), {"x": torch.zeros(args.batch_size, 24)}'
        )
    return result


def _capture_generate(module: torch.nn.Module, args: argparse.Namespace) -> dict:
    from . import huggingface

    return huggingface.capture_generate(module, args.batch_size, args.seq or 128, args.prompts)


def write_reference(module: torch.nn.Module, inputs: capture.Inputs, folder: Path) -> Path:
    """What PyTorch computes for `inputs`: inputs/NAME.npy and outputs/NAME.npy, bf16 as uint16."""
    program = capture.capture_forward(module, inputs)
    args, kwargs = capture.as_arguments(inputs)
    with torch.no_grad():
        results = program.module()(*args, **kwargs)
    named = kwargs or dict(zip(program.graph_signature.user_inputs, args))
    outputs = dict(
        zip(program.graph_signature.user_outputs, torch.utils._pytree.tree_leaves(results))
    )
    for kind, arrays in (("inputs", named), ("outputs", outputs)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, value in arrays.items():
            np.save(folder / kind / f"{name}.npy", to_core(name, value)[0])
    return folder


def _script() -> str:
    return os.path.basename(sys.argv[0]) or "model.py"
