# The contract of the compiled module: thin bindings of src/cli, src/compiler and src/runtime.
from collections.abc import Callable, Mapping

import numpy as np

# An array and its dtype's name: f32, f16, f64, i64, i32, i16, i8, u8, bool, or bf16 (as uint16).
Array = tuple[np.ndarray, str]

def cli(argv: list[str], model_path_provider: Callable[[str], str] | None) -> int:
    """The command line; argv[0] is the name in messages, the result is the exit status.

    With `model_path_provider` the commands take no MODEL. It gets one JSON object: the options by
    their long names with underscores (`batch_size`, `precision`, `arch`, `generate`, ...; without
    `precision` the module stays as it is) and `want`, which says what path it returns.
    "model": a .pt2 file. "reference": a folder with inputs/NAME.npy and outputs/NAME.npy, which are
    PyTorch's results (bf16 as uint16).
    """

def compile(
    model_path: str, options_json: str, progress: Callable[[str, float], None] | None
) -> str:
    """`options_json`: the command line's options with underscores. `progress(stage, share done)`.

    JSON: {"path", "size_bytes", "graphs": [name, ...], "plans": [{"n_chips", "mode"}, ...]}.
    """

def explain(path: str, n_chips: int, layer: int | None) -> str:
    """JSON: what `shardwright explain PEF --json` prints."""

def files(path: str) -> dict[str, bytes]:
    """The files that go along in a PEF, by name ("tokenizer.json")."""

class Session:
    def __init__(self, path: str, options_json: str) -> None:
        """`options_json`: {"n_chips", "chips", "threads_per_chip", "deadline_ms"}, all optional."""

    def run(self, inputs: Mapping[str, Array], graph: str | None) -> dict[str, Array]: ...
    def parameters(self) -> dict[str, Array]: ...
    def info(self) -> str:
        """JSON: {"path", "n_chips", "mode", "graphs", "plans", "memory"}.

        graphs: [{"name", "inputs": [{"name", "dtype", "shape"}, ...], "outputs": [...]}, ...]
        memory: [{"parameters", "arena", "transfer", "scratch"}, ...], bytes of each chip
        """

    def measure(self, options_json: str) -> str:
        """`options_json`: {"graph", "runs", "warmup"}.

        JSON: {"median_s", "p90_s", "p99_s", "steps": [{"chip", "operator", "source", "seconds",
        "waited_seconds"}, ...], ...}: seconds of one run.
        """

class Generator:
    """Text from a PEF that was compiled with --generate: `slots` sequences side by side."""

    def __init__(self, session: Session) -> None: ...
    def start(self, slot: int, tokens: list[int], sampling_json: str) -> None:
        """A new sequence. `sampling_json`: {"temperature", "top_k", "top_p", "repetition_penalty",
        "seed"}, all optional; without a temperature the likeliest token is taken."""

    def stop(self, slot: int) -> None: ...
    def step(self) -> list[tuple[int, int, bool]]:
        """Runs one graph. (slot, new token, whether the cache is full now) of each sequence whose
        prompt is done; others had a piece of theirs read."""

    def info(self) -> str:
        """JSON: {"slots", "length", "vocabulary", "prompt_tokens", "prompt_seconds",
        "decode_runs", "decode_tokens", "decode_seconds"}: totals of all runs so far."""
