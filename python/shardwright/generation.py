# session.generate(): prompts in, tokens out.
from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import text
from .errors import ShardwrightError

if TYPE_CHECKING:
    from .session import Session


def generate(
    session: Session,
    prompts: Any,
    max_new_tokens: int | None,
    sampling: dict[str, Any],
    stop_tokens: Sequence[int] | None,
) -> Iterator[Any]:
    """See Session.generate. Checks its arguments before the first token is asked for."""
    single = (
        isinstance(prompts, str)
        or np.ndim(_first(prompts)) == 0
        and not isinstance(_first(prompts), str)
    )
    sequences = [tokens_of(session, prompt) for prompt in ([prompts] if single else prompts)]
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ShardwrightError(f"max_new_tokens={max_new_tokens}: give 1 or more")
    if stop_tokens is None:
        stop_tokens = text.stop_tokens(session.files)
    generator = session.new_generator()
    slots = json.loads(generator.info())["slots"]
    if len(sequences) > slots:
        raise ShardwrightError(
            f"{len(sequences)} prompts, but the PEF was compiled for {slots} side by side; give "
            f"fewer, or compile with batch_size={len(sequences)}"
        )
    for slot, tokens in enumerate(sequences):
        generator.start(slot, tokens, json.dumps(sampling | {"seed": sampling["seed"] + slot}))
    tokens = _tokens(session, generator, len(sequences), max_new_tokens, set(stop_tokens))
    return (token for _, token in tokens) if single else tokens


def _tokens(
    session: Session, generator: Any, count: int, most: int | None, stop_tokens: set[int]
) -> Iterator[tuple[int, int]]:
    start, first = time.perf_counter(), None
    left = dict.fromkeys(range(count), most)
    while left:
        for slot, token, full in generator.step():
            if first is None:
                first = time.perf_counter() - start
            if left[slot] is not None:
                left[slot] -= 1
            if full or left[slot] == 0 or token in stop_tokens:
                generator.stop(slot)
                del left[slot]
            session.stats = _stats(json.loads(generator.info()), first)
            yield slot, token


def _stats(info: dict[str, Any], first: float) -> dict[str, Any]:
    def rate(tokens: int, seconds: float) -> float | None:
        return tokens / seconds if seconds > 0 else None

    return info | {
        "time_to_first_token_s": first,
        "prompt_tokens_per_s": rate(info["prompt_tokens"], info["prompt_seconds"]),
        "tokens_per_s": rate(info["decode_tokens"], info["decode_seconds"]),
    }


def tokens_of(session: Session, prompt: Any) -> list[int]:
    """Token ids of a text, a list or an array."""
    if isinstance(prompt, str):
        return session.tokenizer.encode(prompt)
    array = np.asarray(prompt)
    if array.size == 0:
        return []  # refused with all other mistakes
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ShardwrightError(
            f"a prompt is text or token ids (tokens,), not {array.dtype} {array.shape}"
        )
    return array.tolist()


def _first(prompts: Any) -> Any:
    for prompt in prompts:
        return prompt
    raise ShardwrightError("there is no prompt; give text, or at least one token")
