# More chips than cores: SmolLM2-135M on 8 chips of one thread against one chip's total work.
"""Prints, for prompts of 1, 16 and 128 tokens in weight mode, the time of a run of

    1 chip x 1 thread (its total work) | 1 chip x 2 threads | 8 chips x 1 thread

and the ratios of the last to the others. On two cores the first ratio must stay below 2; the
second shows what cutting into eight and changing between threads cost.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from prefill_bench import best_of

import shardwright as sw
from shardwright import capture, huggingface

AT_MOST = 2.0  # from the issue that asked for it


def measure(model: torch.nn.Module, tokens: int, n_chips: int, rounds: int, folder: Path) -> None:
    inputs = {"input_ids": torch.arange(tokens)[None] * 37 % 49152}
    path = capture.save(capture.capture_forward(model, inputs), folder / f"{tokens}.pt2")
    pef = sw.compile(
        path,
        pef_name=str(tokens),
        tensor_parallel="weight",
        n_chips=[1, n_chips],
        inference=True,
        output_folder=folder,
    )
    path.unlink()
    shapes = {"1 chip x 1 thread": (1, 1), "1 chip x 2 threads": (1, 2)}
    many = f"{n_chips} chips x 1 thread"
    shapes[many] = (n_chips, 1)
    times = {}
    for name, (chips, threads) in shapes.items():
        # One session at a time: while threads outnumber cores, none of them spins.
        session = sw.load(pef, n_chips=chips, threads_per_chip=threads)
        times[name] = best_of({name: lambda s=session: s.run(inputs)}, rounds)[name]
        del session
    pef.path.unlink()
    print(f"{tokens} tokens: " + ", ".join(f"{n} {s * 1e3:.1f} ms" for n, s in times.items()))
    for name, limit in (("1 chip x 1 thread", f" (at most {AT_MOST})"), ("1 chip x 2 threads", "")):
        print(f"    {many} / {name}: {times[many] / times[name]:.2f}{limit}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-chips", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 128])
    args = parser.parse_args()
    model = huggingface.load(huggingface.smollm2())
    with tempfile.TemporaryDirectory() as folder:
        for tokens in args.tokens:
            measure(model, tokens, args.n_chips, args.rounds, Path(folder))


if __name__ == "__main__":
    main()
