# Shardwright's side of the table: a PEF for each model, precision and batch size, compiled once.
from __future__ import annotations

from pathlib import Path

import numpy as np

import shardwright as sw
from shardwright import _core

MOST_TOKENS = 640  # prompt and new tokens: the length of the cache


class Peer:
    """`settings`: folder, precision, chips (threads are divided among them), pef_folder."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.chips = settings["chips"]
        self.figures = ("Shardwright" if self.chips == 1 else f"Shardwright {self.chips} chips",)
        self.about = f"Shardwright {sw.__version__}"
        self.sessions: dict[str, sw.Session] = {}

    def prefill(self, figure: str, ids: np.ndarray) -> np.ndarray:
        rows, tokens = ids.shape
        session = self._session(f"forward-{tokens}", inference=True, batch_size=rows, seq=tokens)
        return session.run({"input_ids": ids})["logits"][0, -1]

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        raise NotImplementedError("Shardwright can't generate yet")

    def _session(self, kind: str, **options) -> sw.Session:
        if kind not in self.sessions:
            settings = self.settings
            self.sessions[kind] = sw.load(
                self._pef(kind, options),
                n_chips=self.chips,
                threads_per_chip=settings["threads"] // self.chips,
            )
        return self.sessions[kind]

    def _pef(self, kind: str, options: dict) -> Path:
        """Compiled again when Shardwright has been built since."""
        settings = self.settings
        name = f"{settings['model']}-{settings['precision']}-{kind}"
        path = Path(settings["pef_folder"]) / name / f"{name}.pef"
        if path.exists() and path.stat().st_mtime > Path(_core.__file__).stat().st_mtime:
            return path
        pef = sw.compile(
            settings["folder"],
            pef_name=name,
            output_folder=settings["pef_folder"],
            precision=settings["precision"],
            tensor_parallel="weight",
            n_chips=[1, 2],
            **options,
        )
        return pef.path
