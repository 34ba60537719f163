# Captures a PyTorch module as a .pt2 file in core form, and writes the same bytes each time.
"""Capture: nn.Module -> torch.export program in core form -> .pt2 file.

Core form is functional and small: no in-place operator, no dropout, no casts that change nothing,
and it keeps `linear`, `scaled_dot_product_attention` and `layer_norm` whole. Run as a program it
captures a Hugging Face folder:

    python -m shardwright.capture FOLDER -o model.pt2 --seq 128 --batch 1 --precision f32
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import site
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from .errors import ShardwrightError

Inputs = Mapping[str, torch.Tensor] | Sequence[torch.Tensor] | torch.Tensor

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}


def capture_forward(module: torch.nn.Module, inputs: Inputs) -> ExportedProgram:
    """Captures `module(inputs)` in eval mode, for the shapes and dtypes of the example `inputs`.

    `inputs`: a dict by parameter name of `forward`, or a sequence in its order, or one tensor.
    Outputs get names: the keys of a dict or of a transformers output; `output_0`, `output_1`, ...
    where there are none.
    """
    if not isinstance(module, torch.nn.Module):
        raise ShardwrightError(f"a torch.nn.Module is wanted, not {type(module).__name__}")
    args, kwargs = as_arguments(inputs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_eval_mode(module))
        if _transformers_models(module):
            from . import huggingface

            stack.enter_context(huggingface.ready_for_capture(module, kwargs))
        # With grad mode on, the program would hold grad-mode regions. requires_grad of each
        # parameter is kept all the same.
        stack.enter_context(torch.no_grad())
        stack.enter_context(_quiet())
        try:
            return to_core_form(torch.export.export(module, args, kwargs, strict=False))
        except ShardwrightError:
            raise
        except Exception as error:
            raise ShardwrightError(
                f"torch.export can't capture {type(module).__name__}: {error}", code=3
            ) from error


def to_core_form(program: ExportedProgram) -> ExportedProgram:
    """The functional form that the reader takes; without what would differ from run to run."""
    # An empty table: the default one would take linear, attention and silu apart.
    program = program.run_decompositions({})
    _drop_assertions(program)
    _name_outputs(program)
    _strip_metadata(program)
    return program


def cast(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Converts parameters and buffers to `dtype` in place, but rope's inverse frequencies stay f32.

    In bf16 they would be off by 0.4 %, which after a thousand positions is a wrong angle.
    """
    kept = {name: value for name, value in module.named_buffers() if name.endswith("inv_freq")}
    module.to(dtype)
    for name, value in kept.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, value)
    return module


def cast_inputs(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same inputs, the floating ones in `dtype`."""
    return pytree.tree_map_only(
        torch.Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs
    )


def dtype_of(precision: str) -> torch.dtype:
    """f32 -> torch.float32, bf16 -> torch.bfloat16."""
    if precision not in PRECISIONS:
        raise ShardwrightError(
            f"precision '{precision}' can't be captured; give {' or '.join(PRECISIONS)}"
        )
    return PRECISIONS[precision]


def save(program: ExportedProgram | Mapping[str, ExportedProgram], path: str | os.PathLike) -> Path:
    """Writes one program, or several by name, as a .pt2 file; equal programs give equal bytes."""
    path = Path(path)
    if path.suffix != ".pt2":
        raise ShardwrightError(
            f"'{path}' must end in .pt2, for example '{path.with_suffix('.pt2')}'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # The archive's root folder is the file's name, so the unfinished file is elsewhere under that.
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
        )
        unfinished = Path(folder) / path.name
        programs = [program] if isinstance(program, ExportedProgram) else program.values()
        stack.enter_context(_quiet())
        for part in programs:
            stack.enter_context(_zero_buffers_shrunk(part))
        if not isinstance(program, ExportedProgram):
            stack.enter_context(_weights_once(program))
        if isinstance(program, ExportedProgram):
            torch.export.save(program, unfinished)
        else:
            from torch.export.pt2_archive._package import package_pt2

            package_pt2(str(unfinished), exported_programs=dict(program))
        os.replace(unfinished, path)
    return path


def as_arguments(inputs: Inputs) -> tuple[tuple, dict]:
    """Example inputs as (args, kwargs) of a call."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return ((inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)), {}


def _transformers_models(module: torch.nn.Module) -> bool:
    # If nobody imported it, the module can have none of its models.
    transformers = sys.modules.get("transformers.modeling_utils")
    return transformers is not None and any(
        isinstance(part, transformers.PreTrainedModel) for part in module.modules()
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings of its own deprecated calls, and of our shrunk buffers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="No complete tensor found")
        yield


@contextlib.contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def _graph_modules(program: ExportedProgram) -> Iterator[torch.fx.GraphModule]:
    return (
        part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)
    )


def _drop_assertions(program: ExportedProgram) -> None:
    """They survive decomposition and would be consumers of values, which hides fusion patterns."""
    for part in _graph_modules(program):
        for node in list(part.graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                part.graph.erase_node(node)
        part.graph.eliminate_dead_code()
        part.recompile()


def _name_outputs(program: ExportedProgram) -> None:
    """Renames the values that are returned: the reader takes an output's name from its value."""
    specs = program.graph_signature.output_specs
    values = program.graph.output_node().args[0]
    user = [i for i, spec in enumerate(specs) if spec.kind == OutputKind.USER_OUTPUT]
    paths = pytree.tree_flatten_with_path(
        pytree.tree_unflatten(list(range(len(user))), program.call_spec.out_spec)
    )[0]
    renamed: dict[str, str] = {}
    for i, (path, _) in zip(user, paths):
        value = values[i]
        if (
            not isinstance(value, torch.fx.Node)
            or value.op == "placeholder"
            or value.name in renamed.values()
        ):
            continue
        before = value.name
        value._rename(_output_name(path))
        renamed[before] = value.name
    for spec in specs:
        if isinstance(spec.arg, TensorArgument) and spec.arg.name in renamed:
            spec.arg = TensorArgument(name=renamed[spec.arg.name])


def _output_name(path: tuple) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
    name = re.sub(r"\W", "_", "_".join(keys))
    return name if name and not name[0].isdigit() else f"output_{name or 0}"


def _strip_metadata(program: ExportedProgram) -> None:
    """Drops what differs from run to run: addresses, absolute paths. A line of each trace stays."""
    for part in _graph_modules(program):
        for node in part.graph.nodes:
            node.meta.pop("from_node", None)
            node.meta.pop("torch_fn", None)
            if "stack_trace" in node.meta:
                node.meta["stack_trace"] = _users_frame(node.meta["stack_trace"])
    program._example_inputs = None  # would be a pickle, which nobody reads


_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>.*)')
_INSTALLED = tuple(
    {sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")}
    | set(site.getsitepackages())
    | {str(Path(__file__).parent)}
)


def _users_frame(stack_trace: str) -> str:
    """The innermost frame outside of installed packages; if all are installed, the innermost."""
    frames = list(_FRAME.finditer(stack_trace))
    if not frames:
        return ""
    own = [frame for frame in frames if not frame["file"].startswith(_INSTALLED)]
    frame = (own or frames)[-1]
    return (
        f'  File "{os.path.basename(frame["file"])}", line {frame["line"]}, in {frame["function"]}'
    )


@contextlib.contextmanager
def _weights_once(programs: Mapping[str, ExportedProgram]) -> Iterator[None]:
    """The first program by name keeps the values of the weights that others have, too; there they
    have a shape alone, which the reader takes as: those of the same name."""
    first, *others = (programs[name] for name in sorted(programs))
    whole = [dict(part.state_dict) for part in others]
    for part, values in zip(others, whole):
        for name, value in values.items():
            kept = first.state_dict.get(name)
            if kept is not None and kept.data_ptr() == value.data_ptr():
                shape = torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device="meta"
                )
                if isinstance(value, torch.nn.Parameter):
                    shape = torch.nn.Parameter(shape, value.requires_grad)
                part.state_dict[name] = shape
    try:
        yield
    finally:
        for part, values in zip(others, whole):
            part.state_dict.update(values)


@contextlib.contextmanager
def _zero_buffers_shrunk(program: ExportedProgram) -> Iterator[None]:
    """A KV cache starts as zeros: one scalar with strides 0 says the same in 4 bytes. In the file
    only, since PyTorch can't write to such a tensor."""
    whole = dict(program.constants)
    for name, value in whole.items():
        if isinstance(value, torch.Tensor) and value.numel() > 1 and not value.any():
            program.constants[name] = torch.zeros((), dtype=value.dtype).expand(value.shape)
    try:
        yield
    finally:
        program.constants.update(whole)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m shardwright.capture",
        description="capture a Hugging Face folder as a .pt2 file",
        epilog="example: python -m shardwright.capture ./SmolLM2-135M -o smollm2.pt2 --seq 128",
    )
    parser.add_argument(
        "folder", help="config.json with safetensors, or a GGUF file of a llama model"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.pt2")
    parser.add_argument("--seq", type=int, default=128, help="tokens a sequence (default 128)")
    parser.add_argument("-b", "--batch", type=int, default=1, help="sequences (default 1)")
    parser.add_argument(
        "--precision", choices=sorted(PRECISIONS), help="default: bf16 if the weights are, else f32"
    )
    parser.add_argument(
        "--generate",
        action="store_true",
        help="programs that write text: prompts of several lengths, and decode, with a KV cache of "
        "--seq tokens",
    )
    parser.add_argument(
        "--train", action="store_true", help="with labels as an input and the model's own loss"
    )
    parser.add_argument(
        "--prompts",
        metavar="N,N",
        type=lambda text: [int(part) for part in text.split(",")],
        help="lengths of the prompt programs (default: 32,128,512,... up to --seq)",
    )
    parser.add_argument(
        "--files", metavar="FOLDER", help="where the tokenizer's files go, with --generate"
    )
    args = parser.parse_args(argv)
    for option in ("seq", "batch"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} {getattr(args, option)} must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    try:
        from . import huggingface

        model = huggingface.load(args.folder, dtype_of(args.precision) if args.precision else None)
        if args.generate:
            program = huggingface.capture_generate(model, args.batch, args.seq, args.prompts)
            if args.files:
                huggingface.save_tokenizer(args.folder, Path(args.files))
        else:
            inputs = huggingface.example_inputs(model, args.batch, args.seq)
            if args.train:
                inputs = huggingface.with_labels(model, inputs)
            program = capture_forward(model, inputs)
        save(program, args.output)
    except ShardwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
