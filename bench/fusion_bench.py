# What fusion saves: -o3 against -o0 and -o1 on SmolLM2-135M, in time, arena and memory traffic.
"""One chip of two threads, f32, prefill of 1 x 128 and 1 x 512 tokens and a batch of 4 x 128.

Times are the best of interleaved rounds. The arena and the traffic (what all steps' operands and
results span in memory; the weights apart, as no fusion changes them much) are computed from the
program. A ratio is that of -o0 or -o1 to -o3: above 1 means that -o3 has less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from prefill_bench import best_of

import shardwright as sw
from shardwright import capture, huggingface

SIZES = ("1x128", "1x512", "4x128")
LEVELS = (0, 1, 3)
QUANTITIES = {
    "ms": "time, ms",
    "steps": "steps",
    "arena_MB": "arena, MB",
    "activations_MB": "traffic, MB: activations",
    "weights_MB": "weights",
}


def measure(model: torch.nn.Module, size: str, rounds: int, folder: Path) -> dict:
    batch, tokens = map(int, size.split("x"))
    inputs = {"input_ids": torch.arange(batch * tokens).reshape(batch, tokens) * 37 % 49152}
    path = capture.save(capture.capture_forward(model, inputs), folder / f"{size}.pt2")
    pefs = {
        level: sw.compile(
            path,
            pef_name=f"{size}_o{level}",
            n_chips=1,
            inference=True,
            optimization=level,
            output_folder=folder,
        )
        for level in LEVELS
    }
    path.unlink()
    sessions = {level: sw.load(pef, threads_per_chip=2) for level, pef in pefs.items()}
    times = best_of({level: lambda s=s: s.run(inputs) for level, s in sessions.items()}, rounds)
    levels = {level: {"ms": times[level] * 1e3} | sizes(pef) for level, pef in pefs.items()}
    for pef in pefs.values():
        pef.path.unlink()
    return {
        "size": size,
        "levels": {f"o{level}": values for level, values in levels.items()},
        "ratios_to_o3": {
            f"o{level}": {
                quantity: levels[level][quantity] / levels[3][quantity] for quantity in QUANTITIES
            }
            for level in LEVELS[:-1]
        },
    }


def sizes(pef: sw.Pef) -> dict[str, float]:
    """What the program of the only chip needs, from the PEF."""
    command = [sys.executable, "-m", "shardwright", "inspect", pef.path, "--json"]
    (plan,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["plans"]
    (chip,) = plan["chips"]
    (traffic,) = chip["traffic_of_graphs"]
    return {
        "steps": traffic["steps"],
        "arena_MB": chip["arena_bytes"] / 1e6,
        "activations_MB": traffic["activations_bytes"] / 1e6,
        "weights_MB": traffic["weights_bytes"] / 1e6,
    }


def show(result: dict) -> None:
    print(f"{result['size']:>8}" + "".join(f"{title:>26}" for title in QUANTITIES.values()))
    for level, values in result["levels"].items():
        print(f"{'-' + level:>8}" + "".join(f"{values[q]:26.1f}" for q in QUANTITIES))
    for level, ratios in result["ratios_to_o3"].items():
        name = f"{level} / o3"
        print(f"{name:>8}" + "".join(f"{ratios[q]:26.2f}" for q in QUANTITIES), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="BATCHxTOKENS")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = huggingface.load(huggingface.smollm2())
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            results.append(measure(model, size, args.rounds, Path(folder)))
            if not args.json:
                show(results[-1])
    if args.json:
        print(json.dumps({"schema_version": 1, "results": results}))


if __name__ == "__main__":
    main()
