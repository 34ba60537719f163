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
        self.sessions: dict[str, sw.Session] = {}

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        rows, tokens = ids.shape
        if self._generates:
            return _first(next(iter(self._generator(rows).generate(ids, max_new_tokens=1))))
        session = self._session(f"forward-{tokens}", inference=True, batch_size=rows, seq=tokens)
        return session.run({"input_ids": ids})["logits"][0, -1].argmax()

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        if not self._generates:
            raise NotImplementedError("this build of Shardwright has no Session.generate")
        steps = iter(self._generator(len(ids)).generate(ids, max_new_tokens=n + 1))
        tokens = [_first(next(steps))]  # the prompt's
        start = time.perf_counter()
        tokens += [_first(step) for step in steps]
        seconds = time.perf_counter() - start
        if len(tokens) != n + 1:
            raise RuntimeError(f"asked for {n + 1} tokens, got {len(tokens)}")
        return seconds, tokens

    @property
    def _generates(self) -> bool:
        return hasattr(sw.Session, "generate")

    def _generator(self, rows: int) -> sw.Session:
        return self._session(f"generate-{rows}", generate=True, batch_size=rows, seq=MOST_TOKENS)

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


def _first(step) -> int:
    """The first row's token of what generate gives for a step."""
    return int(np.ravel(step)[0])
