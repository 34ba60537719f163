# One server process: loads a PEF, listens, and ends as signals ask for.
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from ..errors import ShardwrightError
from ..session import load
from .app import Service, make_app
from .batcher import Batcher

# Our levels -> uvicorn's; it says every connection at "info".
_LOG_LEVELS = {"error": "error", "warning": "warning", "info": "warning", "debug": "info"}
_CLOSING_SECONDS = 5  # for answers that are written, but not yet taken


class _Server(uvicorn.Server):
    """uvicorn's stops listening at a signal; this one answers 503 until its work is done."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float):
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task | None = None
        self.on_ready = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        self.on_ready()

    def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

        async def drain() -> None:
            await self._service.drain(self._drain_seconds)
            self.should_exit = True

        self._draining = loop.create_task(drain())


def _bound(host: str, port: int) -> socket.socket:
    """A socket that takes the address, but no connection yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ShardwrightError(
            f"--host {host} --port {port}: {error.strerror or error}; --host 127.0.0.1 --port 0 "
            "takes any free port"
        ) from error
    return listener


def serve(options: dict[str, Any]) -> None:
    """`options`: those of `shardwright serve`, with underscores. Returns when a signal has ended
    the server."""
    listener = _bound(options["host"], options["port"])
    session = load(
        options["pef"],
        n_chips=options.get("n_chips"),
        threads_per_chip=options.get("threads"),
        deadline_ms=options.get("deadline_ms"),
    )
    if "tokenizer.json" not in session.files:
        raise ShardwrightError(
            f"{options['pef']} holds no tokenizer, so it can't serve text; compile a Hugging Face "
            "folder that has one with --generate"
        )
    batcher = Batcher(session.new_generator(), session.tokenizer, options["max_queue"])
    model = Path(options["pef"]).stem
    service = Service(batcher, session.tokenizer, model, os.environ.get("SHARDWRIGHT_API_KEY"))
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    level = options.get("log_level", "info")
    config = uvicorn.Config(
        make_app(service, on_failure=fail),
        log_level=_LOG_LEVELS[level],
        access_log=level == "debug",
        server_header=False,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
        ws="none",
    )
    server = _Server(config, service, options["drain_seconds"])
    server.on_ready = lambda: _say_ready(options, listener, batcher, model, session.n_chips)
    server.run(sockets=[listener])
    if failures:
        raise ShardwrightError(f"generation failed: {failures[0]}", code=6) from failures[0]


def _say_ready(
    options: dict[str, Any], listener: socket.socket, batcher: Batcher, model: str, n_chips: int
) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    if options.get("json"):
        print(json.dumps({"schema_version": 1, "url": url, "model": model}), flush=True)
    else:
        print(
            f"{url}  model {model}, {batcher.slots} x {batcher.length} tokens at once, "
            f"chips: {n_chips}",
            flush=True,
        )
