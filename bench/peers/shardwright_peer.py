# Shardwright's side of the table: a PEF for each model, precision and batch size, compiled once.
from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import shardwright as sw
from shardwright import _core

MOST_TOKENS = 640  # prompt and new tokens: the length of the cache


class Peer:
    """`settings`: folder, precision, chips (threads are divided among them), pef_folder;
    name of the figure (default: Shardwright)."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.chips = settings["chips"]
        self.figures = (settings.get("name", "Shardwright"),)
        self.about = f"Shardwright {sw.__version__}"
        self.rows, self.generator = 0, None  # one at a time: weights are large

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        return self._started(ids)[1]

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        generator, first = self._started(ids)
        start = time.perf_counter()
        steps = [generator.step() for _ in range(n)]
        seconds = time.perf_counter() - start
        return seconds, [first] + [step[0][1] for step in steps]

    def _started(self, ids: np.ndarray) -> tuple:
        """A generator that has read the prompts (rows, tokens), and the first row's next token."""
        if self.rows != len(ids):
            self.rows, self.generator = 0, None
            self.generator = self._session(len(ids)).new_generator()
            self.rows = len(ids)
        generator = self.generator
        for slot, tokens in enumerate(ids.tolist()):
            generator.start(slot, tokens, "{}")
        while not (step := generator.step()):
            pass
        return generator, step[0][1]

    def _session(self, rows: int) -> sw.Session:
        return sw.load(
            self._pef(rows),
            n_chips=self.chips,
            threads_per_chip=max(1, self.settings["threads"] // self.chips),
        )

    def _pef(self, rows: int) -> Path:
        """Compiled again when Shardwright has been built since."""
        settings = self.settings
        name = f"{settings['model']}-{settings['precision']}-{rows}"
        path = Path(settings["pef_folder"]) / name / f"{name}.pef"
        if path.exists() and path.stat().st_mtime > Path(_core.__file__).stat().st_mtime:
            return path
        pef = sw.compile(
            settings["folder"],
            pef_name=name,
            output_folder=settings["pef_folder"],
            precision=settings["precision"],
            tensor_parallel="weight",
            n_chips=[1, 2, 8] if rows == 1 else [1],
            generate=True,
            batch_size=rows,
            seq=MOST_TOKENS,
            prompts=[32, 128, 512],
        )
        return pef.path
