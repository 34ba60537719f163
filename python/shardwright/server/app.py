# The FastAPI application: routes, streams, authorisation, and the end of a server.
from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from ..text import Tokenizer
from .batcher import Batcher, Closed, Job, Piece, QueueFull
from .metrics import Metrics
from .protocol import Answer, ApiError, Chat, Completion, Limits, _Endpoint, parse_json

_MOST_BYTES = 16 << 20  # of a body; far more than any cache takes
_ENDPOINTS = {"/v1/completions": Completion(), "/v1/chat/completions": Chat()}
_PATHS = {*_ENDPOINTS, "/v1/models", "/health", "/metrics"}
_SHUTTING_DOWN = "the server is shutting down: ask again when it is back"


class Service:
    """What all requests share. Its methods run on the event loop."""

    def __init__(
        self, batcher: Batcher, tokenizer: Tokenizer, model: str, api_key: str | None = None
    ):
        self.batcher = batcher
        self.tokenizer = tokenizer
        self.limits = Limits(model, batcher.length, batcher.vocabulary)
        self.api_key = api_key
        self.metrics = Metrics()
        self.draining = False
        self._created = int(time.time())
        self._requests: set[_Generation] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Refuses new requests, and returns when those that run are done, or ended after that
        time."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        await run_in_threadpool(self.batcher.close, _SHUTTING_DOWN)

    def check_open(self) -> None:
        if self.draining:
            raise ApiError(503, _SHUTTING_DOWN)

    def began(self, generation: _Generation) -> None:
        self._requests.add(generation)
        self._idle.clear()

    def ended(self, generation: _Generation) -> None:
        self._requests.discard(generation)
        if not self._requests:
            self._idle.set()

    def models(self) -> dict[str, Any]:
        model = {
            "id": self.limits.model,
            "object": "model",
            "created": self._created,
            "owned_by": "shardwright",
            "max_model_len": self.limits.length,
        }
        return {"object": "list", "data": [model]}

    def metrics_text(self) -> str:
        waiting, running = self.batcher.counts()
        stats = self.batcher.stats
        return self.metrics.text(
            {
                f"shardwright_{name}": (kind, about, value)
                for name, kind, about, value in (
                    ("queue_length", "gauge", "Requests that wait for a slot.", waiting),
                    ("busy_slots", "gauge", "Slots that write a text.", running),
                    ("slots", "gauge", "Texts that can be written at once.", self.batcher.slots),
                    (
                        "generated_tokens_total",
                        "counter",
                        "Tokens that were generated.",
                        self.batcher.generated,
                    ),
                    (
                        "prompt_seconds_total",
                        "counter",
                        "Seconds in runs that read prompts.",
                        stats["prompt_seconds"],
                    ),
                    (
                        "decode_seconds_total",
                        "counter",
                        "Seconds in runs of one token a slot.",
                        stats["decode_seconds"],
                    ),
                )
            }
        )


class _Generation:
    """One request for text: its job, the pieces that have come, and what ends it early."""

    def __init__(self, service: Service, request: Request, endpoint: _Endpoint, body: dict):
        self._service = service
        self._request = request
        self._endpoint = endpoint
        self._body = body
        self._start = time.perf_counter()
        self._first = True  # no piece has come
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()  # None: the client has gone

    async def answer(self) -> Response:
        service = self._service
        call = await run_in_threadpool(
            self._endpoint.parse, self._body, service.tokenizer, service.limits
        )
        loop = asyncio.get_running_loop()

        def deliver(piece: Piece) -> None:
            loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

        self._job = Job(call.tokens, call.max_new_tokens, call.sampling, call.stops, deliver)
        self._answer = Answer(self._endpoint, service.limits.model, call)
        service.check_open()
        try:
            service.batcher.submit(self._job)
        except QueueFull:
            raise ApiError(429, "too many requests wait for a slot: ask again later") from None
        except Closed as error:
            raise ApiError(503, str(error)) from None
        service.metrics.prompt_tokens += len(call.tokens)
        service.began(self)
        self._watch = asyncio.create_task(self._wait_until_gone())
        if call.stream:
            return _EventStream(self._events(), self._end)
        try:
            return await self._whole()
        finally:
            self._end()

    def _end(self) -> None:
        """Whatever happened: the slot is given back."""
        self._watch.cancel()
        self._service.batcher.cancel(self._job)
        self._service.ended(self)

    async def _wait_until_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._pieces.put_nowait(None)

    async def _next(self) -> Piece:
        """Throws ApiError: there is no more, because the job failed or the client has gone."""
        piece = await self._pieces.get()
        metrics = self._service.metrics
        if piece is None:
            metrics.cancelled += 1
            raise ApiError(499, "the client has gone")
        if piece.error is not None:
            raise ApiError(503, piece.error)
        now = time.perf_counter() - self._start
        if self._first:
            self._first = False
            metrics.first_text.observe(now)
        if piece.last:
            metrics.answer.observe(now)
        return piece

    async def _whole(self) -> Response:
        texts = []
        while True:
            piece = await self._next()
            texts.append(piece.text)
            if piece.last:
                text, generated = "".join(texts), self._job.generated
                return JSONResponse(self._answer.whole(text, piece.finish_reason, generated))

    async def _events(self) -> AsyncIterator[str]:
        for chunk in self._answer.opening():
            yield _event(chunk)
        try:
            while True:
                piece = await self._next()
                if piece.text:
                    yield _event(self._answer.chunk(piece.text, None))
                if piece.last:
                    break
        except ApiError as error:
            yield _event(error.json())
            return
        yield _event(self._answer.chunk("", piece.finish_reason))
        for chunk in self._answer.closing(self._job.generated):
            yield _event(chunk)
        yield "data: [DONE]\n\n"


class _EventStream(StreamingResponse):
    """Server-sent events. `end` is called even if the client goes before the first of them."""

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None]):
        super().__init__(events, media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-cache"
        self._end = end

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


class _Gate:
    """ASGI middleware: who may enter, and how many came."""

    def __init__(self, app, service: Service):
        self._app = app
        self._service = service

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"] if scope["path"] in _PATHS else "other"

        async def counted(message) -> None:
            if message["type"] == "http.response.start":
                self._service.metrics.requests[path, message["status"]] += 1
            await send(message)

        if path.startswith("/v1/") and not self._may_enter(scope):
            error = ApiError(
                401,
                "the API key is missing or wrong: send the header Authorization: Bearer KEY with "
                "the key of --api-key",
                code="invalid_api_key",
            )
            return await _error_response(error)(scope, receive, counted)
        await self._app(scope, receive, counted)

    def _may_enter(self, scope) -> bool:
        if not self._service.api_key:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, b"Bearer " + self._service.api_key.encode())


def _error_response(error: ApiError) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.json(), error.status, headers)


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise ApiError(413, f"the body is larger than {_MOST_BYTES >> 20} MiB: send less")
    return bytes(content)


def make_app(service: Service, *, on_failure: Callable[[Exception], None]) -> FastAPI:
    """`on_failure` is called on the event loop when generation has failed for good."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        service.batcher.start(lambda error: loop.call_soon_threadsafe(on_failure, error))
        yield
        await run_in_threadpool(service.batcher.close, _SHUTTING_DOWN)

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_middleware(_Gate, service=service)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return _error_response(error)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        works = ", ".join(sorted(_PATHS))
        where = f"{request.method} {request.url.path}"
        return _error_response(ApiError(error.status_code, f"{where}: these paths work: {works}"))

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        message = f"a bug of the server: {type(error).__name__}: {error}"
        return _error_response(ApiError(500, message))

    async def generate(request: Request) -> Response:
        service.check_open()
        body = parse_json(await _body(request))
        return await _Generation(service, request, _ENDPOINTS[request.url.path], body).answer()

    for path in _ENDPOINTS:
        app.add_api_route(path, generate, methods=["POST"])

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(service.models())

    @app.get("/health")
    async def health() -> Response:
        if service.draining:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics_text(), media_type="text/plain; version=0.0.4")

    return app
