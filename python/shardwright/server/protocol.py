# OpenAI's JSON: what a request asks for, or why it is refused; answers whole and in pieces.
from __future__ import annotations

import difflib
import json
import math
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ShardwrightError
from ..text import Tokenizer


class ApiError(Exception):
    """An answer that is no text: an HTTP status and OpenAI's JSON of an error."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def json(self) -> dict[str, Any]:
        kind = {429: "rate_limit_error", 499: "cancelled", 500: "server_error", 503: "server_error"}
        return {
            "error": {
                "message": str(self),
                "type": kind.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }


@dataclass(frozen=True)
class Limits:
    model: str
    length: int  # tokens that the cache holds
    vocabulary: int


@dataclass(frozen=True)
class Call:
    """What a request asks for."""

    tokens: list[int]
    max_new_tokens: int
    sampling: dict[str, Any]  # of _core.Generator.start
    stops: list[str]
    stream: bool
    include_usage: bool


@dataclass(frozen=True)
class _Number:
    kind: type
    default: Any
    allowed: Callable[[Any], bool]
    works: str


_COUNT = _Number(int, None, lambda v: v >= 1, "a whole number of 1 or more")
_SAMPLING = {
    "temperature": _Number(float, 1.0, lambda v: v >= 0, "a number of 0 or more"),
    "top_p": _Number(float, 1.0, lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "top_k": _Number(int, 0, lambda v: v >= -1, "a whole number of 1 or more, or 0 for all tokens"),
    "repetition_penalty": _Number(float, 1.0, lambda v: v > 0, "a number above 0"),
    "seed": _Number(int, None, lambda v: True, "a whole number of at most 64 bits"),
}
_NUMBERS = _SAMPLING | {"max_tokens": _COUNT, "max_completion_tokens": _COUNT}
_FLAGS = ("stream",)
_STOPS = 16  # stop strings a request: each costs time at each token

_ONE = "one answer a request; send the request several times"
_NO_TOOLS = "describe the tools in a message instead"
# What is not supported: the values that change nothing, and what to do instead of others.
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), _ONE),
    "best_of": ((1,), _ONE),
    "echo": ((False,), "put the prompt before the answer yourself"),
    "suffix": (("",), "leave it out"),
    "logprobs": ((False,), "leave it out"),
    "top_logprobs": ((0,), "leave it out"),
    "logit_bias": (({},), "leave it out"),
    "presence_penalty": ((0, 0.0), "repetition_penalty works"),
    "frequency_penalty": ((0, 0.0), "repetition_penalty works"),
    "tools": (([],), _NO_TOOLS),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "functions": (([],), _NO_TOOLS),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "response_format": (({"type": "text"},), "ask for the form in the prompt"),
    "modalities": ((["text"],), "only text is written"),
    "audio": ((), "only text is written"),
}
# What says nothing of the text.
_IGNORED = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
_COMMON = {"model", "stop", "stream_options", *_FLAGS, *_NUMBERS, *_UNSUPPORTED, *_IGNORED}


def shown(value: Any) -> str:
    """A value in a message: JSON, in ASCII, short."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_json(content: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        body = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is {shown(body)}: give a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def _wrong(name: str, value: Any, works: str) -> ApiError:
    return ApiError(400, f"{name} is {shown(value)}: give {works}", param=name)


def _number(name: str, body: Mapping[str, Any]) -> Any:
    """The field's value, or its default."""
    rule = _NUMBERS[name]
    if name not in body:
        return rule.default
    value = body[name]
    right = type(value) is int or (rule.kind is float and type(value) is float)
    # 64 bits, signed or not, which is the widest that is passed on
    if not right or not -(2**63) <= value < 2**64 or not math.isfinite(value):
        raise _wrong(name, value, rule.works)
    if not rule.allowed(value):
        raise _wrong(name, value, rule.works)
    return rule.kind(value)


def _check_fields(body: Mapping[str, Any], known: set[str]) -> None:
    for name, value in body.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ApiError(400, f"there is no field {shown(name)}{hint}")
        neutral, instead = _UNSUPPORTED.get(name, ((value,), ""))
        if not any(type(value) is type(v) and value == v for v in neutral):
            raise ApiError(400, f"{name} is {shown(value)}: not supported; {instead}", param=name)
    for name in _FLAGS:
        if not isinstance(body.get(name, False), bool):
            raise _wrong(name, body[name], "true or false")


def _stops(body: Mapping[str, Any]) -> list[str]:
    value = body.get("stop", [])
    strings = [value] if isinstance(value, str) else value
    if (
        not isinstance(strings, list)
        or len(strings) > _STOPS
        or not all(isinstance(string, str) and string for string in strings)
    ):
        raise _wrong("stop", value, f"a text, or a list of at most {_STOPS} texts, none empty")
    return strings


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options", {})
    if options and not body.get("stream"):
        raise ApiError(
            400, "stream_options needs stream: true; leave it out", param="stream_options"
        )
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise _wrong("stream_options", options, 'an object such as {"include_usage": true}')
    return options.get("include_usage", False)


class _Endpoint(ABC):
    """What the two ways to ask for text differ in."""

    prompt: str  # the field that it stands in
    object: str
    chunk_object: str
    id_prefix: str
    default_max_tokens: int | None  # None: as many as the cache holds

    @abstractmethod
    def tokens(self, value: Any, tokenizer: Tokenizer, limits: Limits) -> list[int]: ...

    def parse(self, body: dict[str, Any], tokenizer: Tokenizer, limits: Limits) -> Call:
        """Throws ApiError."""
        _check_fields(body, _COMMON | {self.prompt})
        model = body.get("model", limits.model)
        if model != limits.model:
            raise ApiError(
                404,
                f"there is no model {shown(model)}; this server has {shown(limits.model)}",
                param="model",
                code="model_not_found",
            )
        sampling = {name: _number(name, body) for name in _SAMPLING}
        sampling["top_k"] = min(max(sampling["top_k"], 0), limits.vocabulary)
        seed = sampling["seed"]
        sampling["seed"] = secrets.randbits(64) if seed is None else seed % 2**64
        most = _number("max_completion_tokens", body) or _number("max_tokens", body)
        stops, include_usage = _stops(body), _include_usage(body)
        if self.prompt not in body:
            raise ApiError(400, f"{self.prompt} is missing", param=self.prompt)
        try:
            tokens = self.tokens(body[self.prompt], tokenizer, limits)
        except ShardwrightError as error:
            raise ApiError(400, str(error), param=self.prompt) from error
        room = self._room(tokens, limits)
        wanted = most or self.default_max_tokens or room
        return Call(
            tokens, min(wanted, room), sampling, stops, body.get("stream", False), include_usage
        )

    def _room(self, tokens: list[int], limits: Limits) -> int:
        """How many tokens may follow."""
        if not tokens:
            raise ApiError(400, "the prompt has no tokens; give at least one", param=self.prompt)
        if len(tokens) > limits.length:
            raise ApiError(
                400,
                f"the prompt has {len(tokens)} tokens, but the KV cache holds {limits.length}: "
                "give a shorter one, or compile with a larger --seq",
                param=self.prompt,
                code="context_length_exceeded",
            )
        return limits.length - len(tokens) + 1  # the last token need not be in the cache

    @abstractmethod
    def choice(self, text: str, reason: str | None) -> dict[str, Any]: ...

    def opening(self) -> list[dict[str, Any]]:
        """Choices of the chunks before the first text."""
        return []

    def chunk_choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return self.choice(text, reason)


class Completion(_Endpoint):
    prompt = "prompt"
    object = chunk_object = "text_completion"
    id_prefix = "cmpl-"
    default_max_tokens = 16  # OpenAI's

    def tokens(self, value, tokenizer, limits):
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
            value = value[0]  # a batch of one
        if isinstance(value, str):
            return tokenizer.encode(_checked_text("prompt", value))
        if not isinstance(value, list) or not all(type(token) is int for token in value):
            raise _wrong("prompt", value, "one text, or one list of token ids; ask once for each")
        for token in value:
            if not 0 <= token < limits.vocabulary:
                raise ApiError(
                    400,
                    f"token {shown(token)} is outside the vocabulary of {limits.vocabulary}",
                    param="prompt",
                )
        return value

    def choice(self, text, reason):
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


class Chat(_Endpoint):
    prompt = "messages"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"
    default_max_tokens = None

    def tokens(self, value, tokenizer, limits):
        if not isinstance(value, list) or not value:
            raise _wrong("messages", value, '[{"role": "user", "content": "..."}]')
        return tokenizer.chat([_message(message) for message in value])

    def choice(self, text, reason):
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def opening(self):
        return [self._delta({"role": "assistant", "content": ""}, None)]

    def chunk_choice(self, text, reason):
        return self._delta({"content": text} if text else {}, reason)

    def _delta(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _checked_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ApiError(
            400, f"{name} has half a surrogate pair: give whole characters", param=name
        ) from None
    return text


def _message(message: Any) -> dict[str, Any]:
    """A message with its text in one piece."""
    works = 'each as {"role": "user", "content": "..."}'
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise _wrong("messages", message, works)
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            is_text = isinstance(part, dict) and part.get("type") == "text"
            if not is_text or not isinstance(part.get("text"), str):
                raise _wrong("content", part, 'only parts as {"type": "text", "text": "..."}')
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise _wrong("messages", message, works)
    for name, value in message.items():  # an assistant's message comes back with empty fields
        if name not in ("role", "content", "name") and value not in (None, []):
            raise ApiError(400, f"{shown(name)} of a message is not supported", param="messages")
    return {"role": message["role"], "content": _checked_text("messages", content)}


class Answer:
    """The answer to one call, whole or in chunks."""

    def __init__(self, endpoint: _Endpoint, model: str, call: Call):
        self._endpoint = endpoint
        self._call = call
        self._head = {
            "id": endpoint.id_prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, reason: str, generated: int) -> dict[str, Any]:
        return {
            **self._head,
            "object": self._endpoint.object,
            "choices": [self._endpoint.choice(text, reason)],
            "usage": self._usage(generated),
        }

    def opening(self) -> list[dict[str, Any]]:
        return [self._chunk([choice]) for choice in self._endpoint.opening()]

    def chunk(self, text: str, reason: str | None) -> dict[str, Any]:
        return self._chunk([self._endpoint.chunk_choice(text, reason)])

    def closing(self, generated: int) -> list[dict[str, Any]]:
        """Chunks after the last text."""
        if not self._call.include_usage:
            return []
        return [self._chunk([]) | {"usage": self._usage(generated)}]

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head, "object": self._endpoint.chunk_object, "choices": choices}
        return chunk | {"usage": None} if self._call.include_usage else chunk

    def _usage(self, generated: int) -> dict[str, int]:
        prompt = len(self._call.tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
        }
