# Batcher: jobs wait in one queue for the slots of a generator, which one thread steps.
from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ShardwrightError
from ..text import Stream, Tokenizer


@dataclass(frozen=True)
class Piece:
    """New text of a job; its last piece has a reason, or the error that ended it."""

    text: str
    finish_reason: str | None = None  # "stop", "length"
    error: str | None = None

    @property
    def last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


class Stops:
    """Cuts a text before the stop string that ends first, however the text comes in pieces."""

    def __init__(self, strings: Sequence[str]):
        self._strings = strings
        self.held = ""  # may be the beginning of a stop string

    def add(self, text: str) -> tuple[str, bool]:
        """The text that is sure now, and whether a stop string was reached."""
        self.held += text
        found = [
            (at + len(string), at)
            for string in self._strings
            if (at := self.held.find(string)) >= 0
        ]
        if found:
            sure, self.held = self.held[: min(found)[1]], ""
            return sure, True
        keep = max((_overlap(self.held, string) for string in self._strings), default=0)
        at = len(self.held) - keep
        sure, self.held = self.held[:at], self.held[at:]
        return sure, False


def _overlap(text: str, string: str) -> int:
    """The longest beginning of `string` that `text` ends with, but for all of it."""
    longest = min(len(string) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)


class Job:
    """One text to write. `deliver` is called with each piece, on the batcher's thread."""

    def __init__(
        self,
        tokens: list[int],
        max_new_tokens: int,
        sampling: dict[str, Any],
        stops: Sequence[str],
        deliver: Callable[[Piece], None],
    ):
        self.tokens = tokens
        self.sampling = sampling
        self.deliver = deliver
        self.generated = 0  # tokens, one that stopped the text included
        self.gone = False  # nobody waits for it any more
        self._max_new_tokens = max_new_tokens
        self._stops = Stops(stops)
        self._stream: Stream | None = None

    def begin(self, tokenizer: Tokenizer) -> None:
        self._stream = Stream(tokenizer)

    def take(self, token: int, full: bool, stop_tokens: Collection[int]) -> Piece:
        self.generated += 1
        reason = "stop" if token in stop_tokens else None
        new = "" if reason else self._stream.add(token)
        if reason is None and (full or self.generated == self._max_new_tokens):
            reason = "length"
        if reason:
            new += self._stream.end()
        text, stopped = self._stops.add(new)
        if stopped:
            reason = "stop"
        elif reason:
            text += self._stops.held
        return Piece(text, reason)


class QueueFull(Exception):
    pass


class Closed(Exception):
    pass


class Batcher:
    """First come, first served. Only its thread touches the generator."""

    def __init__(self, generator: Any, tokenizer: Tokenizer, max_queue: int):
        self._generator = generator
        self._tokenizer = tokenizer
        self._stop_tokens = frozenset(tokenizer.stop_tokens)
        self._max_queue = max_queue
        self._stats = generator.info()
        info = self.stats
        self.slots: int = info["slots"]
        self.length: int = info["length"]  # tokens that the cache of a slot holds
        self.vocabulary: int = info["vocabulary"]
        self.generated = 0  # tokens, of all jobs
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._closed: str | None = None  # why
        self._thread: threading.Thread | None = None

    @property
    def stats(self) -> dict[str, Any]:
        """The generator's info, as of its last step."""
        return json.loads(self._stats)

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        """Starts the thread. `on_failure` is called on it when a step fails; then it has closed."""
        self._thread = threading.Thread(target=self._run, args=[on_failure], daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Throws QueueFull, Closed."""
        with self._changed:
            if self._closed:
                raise Closed(self._closed)
            if len(self._waiting) + len(self._running) >= self.slots + self._max_queue:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Its slot is free before the next step. A job that has ended may be cancelled."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            job.gone = True
            self._changed.notify()

    def close(self, why: str) -> None:
        """Ends all jobs with the error `why`, refuses new ones, and waits for the thread."""
        with self._changed:
            self._closed = self._closed or why
            self._changed.notify()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def counts(self) -> tuple[int, int]:
        """Jobs that wait, jobs that have a slot."""
        with self._changed:
            return len(self._waiting), len(self._running)

    def _run(self, on_failure: Callable[[Exception], None]) -> None:
        failure = None
        try:
            while self._fill_slots():
                self._step()
        except Exception as error:  # a chip failed or timed out: nothing can run any more
            failure = error
        with self._changed:
            self._closed = self._closed or f"generation failed: {failure}"
            jobs = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        for job in jobs:
            job.deliver(Piece("", error=self._closed))
        if failure:
            on_failure(failure)

    def _fill_slots(self) -> bool:
        """Waits until a slot is taken; False: closed."""
        with self._changed:
            while True:
                for slot in [slot for slot, job in self._running.items() if job.gone]:
                    self._free(slot)
                for slot in range(self.slots):
                    while self._waiting and slot not in self._running:
                        self._begin(slot, self._waiting.popleft())
                if self._closed:
                    return False
                if self._running:
                    return True
                self._changed.wait()

    def _begin(self, slot: int, job: Job) -> None:
        try:
            self._generator.start(slot, job.tokens, json.dumps(job.sampling))
        except ShardwrightError as error:  # what the generator refuses is this job's alone
            job.deliver(Piece("", error=str(error)))
            return
        job.begin(self._tokenizer)
        self._running[slot] = job

    def _step(self) -> None:
        for slot, token, full in self._generator.step():
            job = self._running[slot]
            piece = job.take(token, full, self._stop_tokens)
            self.generated += 1
            if piece.last:
                with self._changed:
                    self._free(slot)
            if piece.text or piece.last:
                job.deliver(piece)
        self._stats = self._generator.info()

    def _free(self, slot: int) -> None:
        self._generator.stop(slot)
        del self._running[slot]
