# Tokenizer: text to tokens and back, by the files that a PEF holds.
from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ShardwrightError

if TYPE_CHECKING:
    import jinja2


def stop_tokens(files: Mapping[str, bytes]) -> list[int]:
    """The tokens that end a text, by the files of a PEF."""
    return json.loads(files.get("generation.json", b"{}")).get("stop_tokens", [])


class Tokenizer:
    """A Hugging Face tokenizer without transformers, which would take seconds to import."""

    def __init__(self, files: Mapping[str, bytes]):
        """`files`: tokenizer.json, tokenizer_config.json, chat_template.jinja and generation.json,
        all but the first optional."""
        if "tokenizer.json" not in files:
            raise ShardwrightError(
                "this PEF holds no tokenizer: give token numbers, or compile a Hugging Face folder "
                "that has one"
            )
        try:
            import tokenizers
        except ImportError as error:
            raise ShardwrightError(
                "text needs the package tokenizers: pip install 'shardwright[text]'; token ids "
                "need none"
            ) from error
        self._tokenizer = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = json.loads(files.get("tokenizer_config.json", b"{}"))
        template = files.get("chat_template.jinja")
        self._template = template.decode() if template else self._config.get("chat_template")
        self.stop_tokens = stop_tokens(files)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text; `special`: with those that the tokenizer puts around it."""
        return self._tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of tokens; `special`: with that of special tokens (such as the end of a text)."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=not special)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Tokens of a conversation [{"role": "user", "content": "..."}, ...], by the model's chat
        template, up to where the answer begins."""
        if not self._template:
            raise ShardwrightError(
                "this model has no chat template: give a plain prompt instead of messages"
            )
        from jinja2.exceptions import TemplateError

        tokens = {
            name: value["content"] if isinstance(value, Mapping) else value
            for name, value in self._config.items()
            if name.endswith("_token") and value
        }
        try:
            text = self._compiled_template.render(
                messages=messages, add_generation_prompt=True, **tokens
            )
        except TemplateError as error:
            raise ShardwrightError(f"the chat template refuses these messages: {error}") from error
        return self.encode(text, special=False)

    @functools.cached_property
    def _compiled_template(self) -> jinja2.Template:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
        return environment.from_string(self._template)


class Stream:
    """Tokens one by one to text: gives what can't change any more, and keeps back what may."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._given = 0  # tokens whose text was given
        self._context = 0  # and from which on they are decoded: spaces depend on what was before

    def add(self, token: int) -> str:
        """The new text, possibly empty: half a character is kept back."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._context : self._given])
        after = self._tokenizer.decode(self._tokens[self._context :])
        if len(after) <= len(before) or after.endswith("\ufffd"):
            return ""
        self._context, self._given = self._given, len(self._tokens)
        return after[len(before) :]

    def end(self) -> str:
        """What was kept back."""
        before = self._tokenizer.decode(self._tokens[self._context : self._given])
        return self._tokenizer.decode(self._tokens[self._context :])[len(before) :]


def _raise(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def main() -> int:
    """What the program asks, a line of JSON each (src/cli/text_process.cpp)."""
    from . import _core

    path, streams = sys.argv[1], {}
    try:
        tokenizer, error = Tokenizer(_core.files(path)), None
    except ShardwrightError as refused:
        tokenizer, error = None, str(refused)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(tokenizer, error, streams, request)), flush=True)
    return 0


def _answer(
    tokenizer: Tokenizer | None, error: str | None, streams: dict[int, Stream], request: dict
) -> dict[str, Any]:
    if error:
        return {"error": error}
    if "encode" in request:
        text = request["encode"]
        try:
            if request["chat"]:
                return {"tokens": tokenizer.chat([{"role": "user", "content": text}])}
            return {"tokens": tokenizer.encode(text)}
        except ShardwrightError as refused:
            return {"error": str(refused)}
    stream = streams.setdefault(request["row"], Stream(tokenizer))
    return {"text": stream.add(request["token"]) if "token" in request else stream.end()}


if __name__ == "__main__":
    sys.exit(main())
