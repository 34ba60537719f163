# OpenAI's JSON and the queue behind it, without a server: mistakes, stop strings, a failed chip.
from __future__ import annotations

import json
import random

import pytest
from serving import TEMPLATE, tokenizer, until

import shardwright as sw
from shardwright.server.batcher import Batcher, Closed, Job, Stops
from shardwright.server.protocol import ApiError, Chat, Completion, Limits, parse_json
from shardwright.text import Tokenizer

LIMITS = Limits("tiny", 64, 97)


@pytest.fixture(scope="module")
def letters():
    return Tokenizer(
        {
            "tokenizer.json": tokenizer().to_str().encode(),
            "chat_template.jinja": TEMPLATE.encode(),
        }
    )


MISTAKES = [
    (b"{", 400, "the body is not JSON: Expecting property name enclosed in double quotes: line 1 "),
    (b'{"prompt": NaN}', 400, "the body is not JSON: NaN is no JSON"),
    (b"[" * 100_000, 400, "the body is not JSON: "),
    (b"\xff", 400, "the body is not JSON: "),
    (b"3", 400, "the body is 3: give a JSON object"),
    ({}, 400, "prompt is missing"),
    ({"prompt": ""}, 400, "the prompt has no tokens; give at least one"),
    ({"prompt": {}}, 400, "prompt is {}: give one text, or one list of token ids; ask once for e"),
    ({"prompt": ["a", "b"]}, 400, 'prompt is ["a", "b"]: give one text, or one list of token ids'),
    ({"prompt": [97]}, 400, "token 97 is outside the vocabulary of 97"),
    ({"prompt": [10**30]}, 400, "token 1000000000000000000000000000000 is outside the vocabulary"),
    ({"prompt": "\ud800"}, 400, "prompt has half a surrogate pair: give whole characters"),
    (
        {"prompt": "x" * 65},
        400,
        "the prompt has 65 tokens, but the KV cache holds 64: give a shorter one, or compile with "
        "a larger --seq",
    ),
    ({"prompt": "a", "model": "big"}, 404, 'there is no model "big"; this server has "tiny"'),
    ({"prompt": "a", "model": "\ud800"}, 404, 'there is no model "\\ud800"; this server has'),
    ({"prompt": "a", "n": 2}, 400, "n is 2: not supported; one answer a request; send the request"),
    ({"prompt": "a", "logprobs": 0}, 400, "logprobs is 0: not supported; leave it out"),
    ({"prompt": "a", "echo": True}, 400, "echo is true: not supported; put the prompt before the"),
    ({"prompt": "a", "temperature": -1}, 400, "temperature is -1: give a number of 0 or more"),
    ({"prompt": "a", "temperature": "1"}, 400, 'temperature is "1": give a number of 0 or more'),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature is Infinity: give a number of 0"),
    ({"prompt": "a", "top_p": 0}, 400, "top_p is 0: give a number above 0, at most 1"),
    ({"prompt": "a", "top_k": 1.5}, 400, "top_k is 1.5: give a whole number of 1 or more, or 0 fo"),
    ({"prompt": "a", "seed": 2**64}, 400, "seed is 18446744073709551616: give a whole number of a"),
    ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens is 0: give a whole number of 1 or more"),
    ({"prompt": "a", "max_tokens": True}, 400, "max_tokens is true: give a whole number of 1 or m"),
    (
        {"prompt": "a", "max_token": 1},
        400,
        'there is no field "max_token"; did you mean max_tokens',
    ),
    ({"prompt": "a", "stream": 1}, 400, "stream is 1: give true or false"),
    (
        {"prompt": "a", "stop": [""]},
        400,
        'stop is [""]: give a text, or a list of at most 16 texts',
    ),
    ({"prompt": "a", "stream_options": {"a": 1}}, 400, "stream_options needs stream: true; leave "),
    ({"prompt": "a", "stream": True, "stream_options": 1}, 400, "stream_options is 1: give an obj"),
]
CHAT_MISTAKES = [
    ({}, 400, "messages is missing"),
    ({"prompt": "a"}, 400, 'there is no field "prompt"'),
    ({"messages": []}, 400, 'messages is []: give [{"role": "user", "content": "..."}]'),
    ({"messages": ["a"]}, 400, 'messages is "a": give each as {"role": "user", "content": "..."}'),
    ({"messages": [{"role": "user"}]}, 400, 'messages is {"role": "user"}: give each as'),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        'content is {"type": "image_url"}: give only parts as {"type": "text", "text": "..."}',
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]},
        400,
        '"tool_calls" of a message is not supported',
    ),
    (
        {"messages": [{"role": "bad", "content": "x"}]},
        400,
        "the chat template refuses these messages: no role bad",
    ),
    (
        {"messages": [{"role": "user", "content": "x"}], "tools": [{}]},
        400,
        "tools is [{}]: not supported; describe the tools in a message instead",
    ),
]


@pytest.mark.parametrize(
    "endpoint, body, status, message",
    [(Completion(), *case) for case in MISTAKES] + [(Chat(), *case) for case in CHAT_MISTAKES],
    ids=lambda value: str(value)[:40],
)
def test_mistakes(letters, endpoint, body, status, message):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as raised:
        endpoint.parse(parse_json(content), letters, LIMITS)
    assert raised.value.status == status
    said = raised.value.json()["error"]["message"]
    assert said.startswith(message), said
    said.encode("ascii")


def test_a_request_by_default(letters):
    call = Completion().parse({"prompt": "ab"}, letters, LIMITS)
    assert (call.tokens, call.max_new_tokens, call.stops) == ([66, 67], 16, [])
    assert not call.stream and not call.include_usage
    seed = call.sampling.pop("seed")
    assert seed != Completion().parse({"prompt": "ab"}, letters, LIMITS).sampling["seed"]
    assert call.sampling == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
    }
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    call = Chat().parse({"messages": [{"role": "u", "content": parts}]}, letters, LIMITS)
    assert call.tokens == letters.encode("[u]hi[a]")
    assert call.max_new_tokens == 64 - len(call.tokens) + 1


def test_stops_don_t_depend_on_how_a_text_is_cut():
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(2000):
        text = "".join(draw.choices("ab", k=12))
        strings = ["".join(draw.choices("ab", k=draw.randint(1, 5))) for _ in range(3)]
        ends = [text.index(s) + len(s) for s in strings if s in text]
        first = min(ends, default=None)  # the end of the match that ends first
        starts = [first - len(s) for s in strings if first and text[:first].endswith(s)]
        stops, said, at, stopped = Stops(strings), "", 0, False
        while at < len(text) and not stopped:
            n = draw.randint(1, 4)
            new, stopped = stops.add(text[at : at + n])
            said, at = said + new, at + n
        assert stopped == (first is not None), (text, strings)
        assert said + stops.held == (text[: min(starts)] if starts else text), (text, strings)


class BrokenGenerator:
    def info(self):
        return '{"slots": 1, "length": 8, "vocabulary": 9}'

    def start(self, slot, tokens, sampling):
        if tokens == [1]:
            raise sw.ShardwrightError("no such token")

    def stop(self, slot):
        pass

    def step(self):
        raise sw.ShardwrightError("chip 1 timed out", code=6)


def test_a_failed_chip_ends_all_jobs_and_a_refused_prompt_its_own():
    tokenizer = type("Tokenizer", (), {"stop_tokens": []})()
    batcher = Batcher(BrokenGenerator(), tokenizer, 8)
    pieces, failures = [], []
    for tokens in ([1], [2], [3]):
        batcher.submit(Job(tokens, 4, {}, [], pieces.append))
    batcher.start(failures.append)
    until(lambda: failures, "the step fails")
    assert [piece.error for piece in pieces] == [
        "no such token",
        *["generation failed: chip 1 timed out"] * 2,
    ]
    assert [error.code for error in failures] == [6]
    with pytest.raises(Closed, match="generation failed: chip 1 timed out"):
        batcher.submit(Job([2], 4, {}, [], pieces.append))
    batcher.close("the end")
