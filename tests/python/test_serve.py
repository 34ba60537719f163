# `shardwright serve`, by OpenAI's own client, and by clients that break off or talk nonsense.
from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from program import error
from serving import Server, until, write_model

import shardwright as sw
from shardwright import huggingface

LENGTH, SLOTS = 64, 3
TEXT = "the cat sat"


@pytest.fixture(scope="module")
def pef(tmp_path_factory):
    """A tiny Llama with a tokenizer of one token a character, in slots of 64 tokens."""
    folder = tmp_path_factory.mktemp("serve")
    write_model(folder / "tiny")
    return sw.compile(
        folder / "tiny",
        generate=True,
        batch_size=SLOTS,
        seq=LENGTH,
        prompts=[8, 16],
        output_folder=folder / "out",
        tensor_parallel="weight",
        n_chips=2,
    )


@pytest.fixture(scope="module")
def server(pef):
    server = Server(pef)
    yield server
    assert server.end() == 0


@pytest.fixture(scope="module")
def alone(pef):
    """Greedy text by the session itself."""
    session = sw.load(pef)

    def text(prompt, count: int) -> str:
        tokens = list(session.generate(prompt, max_new_tokens=count))
        return session.tokenizer.decode(tokens)

    return text


def completed(server, prompt=TEXT, **options):
    options = {"max_tokens": 20, "temperature": 0} | options
    return server.client.completions.create(model="tiny", prompt=prompt, **options)


def chatted(server, **options):
    messages = [{"role": "user", "content": "hi"}]
    options = {"max_completion_tokens": 20, "temperature": 0, "messages": messages} | options
    return server.client.chat.completions.create(model="tiny", **options)


def test_completion(server, alone):
    answer = completed(server)
    want = alone(TEXT, 20)
    assert (answer.object, answer.model, answer.choices[0].text) == (
        "text_completion",
        "tiny",
        want,
    )
    assert answer.choices[0].finish_reason == "length" and len(want) == 20
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (11, 20, 31)
    tokens = [ord(letter) - 31 for letter in TEXT]
    assert completed(server, tokens).choices[0].text == want
    assert completed(server, [TEXT]).choices[0].text == want
    assert completed(server, max_tokens=None).choices[0].text == want[:16]


def test_chat_is_the_template_s_prompt(server, alone):
    answer = chatted(server)
    want = alone("[user]hi[a]", 20)
    assert (answer.object, answer.choices[0].message.role) == ("chat.completion", "assistant")
    assert answer.choices[0].message.content == want
    assert answer.usage.prompt_tokens == len("[user]hi[a]")
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    parted = chatted(server, messages=[{"role": "user", "content": parts}])
    assert parted.choices[0].message.content == want


def test_a_text_goes_on_until_the_cache_is_full(server):
    answer = chatted(server, max_completion_tokens=openai.omit)
    assert answer.usage.total_tokens == LENGTH + 1, "the last token is not in the cache"
    assert answer.choices[0].finish_reason == "length"
    assert completed(server, max_tokens=1000).usage.total_tokens == LENGTH + 1
    assert completed(server, "x" * LENGTH).usage.completion_tokens == 1


@pytest.mark.parametrize("ask", [completed, chatted])
def test_streams_say_what_the_whole_says(server, ask):
    def text_of(choice):
        return choice.text if ask is completed else choice.delta.content

    whole = ask(server)
    chunks = list(ask(server, stream=True, stream_options={"include_usage": True}))
    said = "".join(text_of(chunk.choices[0]) or "" for chunk in chunks[:-1])
    assert said == (whole.choices[0].text if ask is completed else whole.choices[0].message.content)
    assert len(chunks) > 10, "piece by piece"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "length"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    if ask is chatted:
        assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in ask(server, stream=True))


def test_stop_strings_end_a_text_and_are_not_in_it(server, alone):
    text = alone(TEXT, 20)
    stop = text[7:10]  # three tokens
    want = text[: text.index(stop)]
    for stops in (stop, [stop, "\n"], ["\n", text[7:12], stop]):
        answer = completed(server, stop=stops)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (want, "stop")
        assert answer.usage.completion_tokens == len(want) + 3
        chunks = list(completed(server, stop=stops, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == want
    # A beginning that comes to nothing is not lost, at the end of the text either.
    assert completed(server, stop=text[17:20] + "~").choices[0].text == text


def test_stop_tokens_end_a_text(pef, server):
    """The model's own end, which a hot model soon draws."""
    answers = [completed(server, temperature=4.0, seed=s, max_tokens=64) for s in range(40)]
    ended = [a for a in answers if a.choices[0].finish_reason == "stop"]
    assert ended and all("<end>" not in a.choices[0].text for a in answers)
    assert all(len(a.choices[0].text) == a.usage.completion_tokens - 1 for a in ended)


def test_sampling(server, alone):
    hot = {"temperature": 2.0, "seed": 7}
    once = completed(server, **hot).choices[0].text
    assert once == completed(server, **hot).choices[0].text
    assert once != completed(server, temperature=2.0, seed=8).choices[0].text
    assert once != completed(server, **hot, extra_body={"repetition_penalty": 1.5}).choices[0].text
    cold = alone(TEXT, 20)
    assert completed(server, **hot, extra_body={"top_k": 1}).choices[0].text == cold
    assert completed(server, **hot, top_p=1e-9).choices[0].text == cold
    default = {completed(server, temperature=openai.omit).choices[0].text for _ in range(3)}
    assert len(default) > 1, "temperature 1, and no seed"


def test_sixteen_at_once_say_what_each_says_alone(server):
    prompts = [TEXT[: 1 + i % 11] + str(i) for i in range(16)]
    options = [{"temperature": i % 2, "seed": i, "max_tokens": 4 + 2 * i} for i in range(16)]

    def ask(i):
        return completed(server, prompts[i], **options[i]).choices[0].text

    one_by_one = [ask(i) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == one_by_one


def test_models_health_and_metrics(server):
    model = server.client.models.list().data[0]
    assert (model.id, model.owned_by, model.max_model_len) == ("tiny", "shardwright", LENGTH)
    assert server.request("GET", "/health") == (200, '{"status":"ok"}')
    before = {
        name: server.metric(f"shardwright_{name}")
        for name in ("generated_tokens_total", "prompt_tokens_total", "answer_seconds_count")
    }
    completed(server)
    for name, more in zip(before, (20, 11, 1)):
        assert server.metric(f"shardwright_{name}") == before[name] + more
    assert server.metric("shardwright_slots") == SLOTS
    assert server.metric("shardwright_queue_length") == server.metric("shardwright_busy_slots") == 0
    text = server.request("GET", "/metrics")[1]
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+({(\w+="[^"]*",?)+})? [\d.e+-]+', line), line


def test_what_changes_nothing_is_taken(server, alone):
    neutral = {"n": 1, "echo": False, "presence_penalty": 0, "logit_bias": {}, "user": "me"}
    assert completed(server, **neutral).choices[0].text == alone(TEXT, 20)
    extreme = {"repetition_penalty": 1e-300, "top_k": 2**63}
    assert completed(server, temperature=1e-300, extra_body=extreme).usage.completion_tokens
    assert completed(server, **neutral).choices[0].text == alone(TEXT, 20), "it lives on"


def test_other_paths(server):
    status, text = server.request("GET", "/v1/complete")
    assert (status, json.loads(text)["error"]["message"]) == (
        404,
        "GET /v1/complete: these paths work: /health, /metrics, /v1/chat/completions, "
        "/v1/completions, /v1/models",
    )
    assert server.request("GET", "/v1/completions")[0] == 405
    status, message = server.refused(b"x" * (17 << 20))
    assert (status, message) == (413, "the body is larger than 16 MiB: send less")


def test_mistakes_are_answered(server):
    assert server.refused(b"{")[0] == 400
    assert server.refused({"messages": "\ud800"}, "/v1/chat/completions") == (
        400,
        'messages is "\\ud800": give [{"role": "user", "content": "..."}]',
    )


def test_openai_s_client_sees_errors_as_its_own(server):
    with pytest.raises(openai.BadRequestError, match="the prompt has 65 tokens") as raised:
        completed(server, "x" * 65)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.NotFoundError) as raised:
        server.client.completions.create(model="other", prompt="a")
    assert raised.value.code == "model_not_found"


@pytest.fixture(scope="module")
def slow(pef, tmp_path_factory):
    """A server whose texts take seconds: one slot of a long cache, so that there is time to see
    it at work."""
    folder = tmp_path_factory.mktemp("slow")
    source = pef.path.parent.parent.parent / "tiny"
    config = json.loads((source / "config.json").read_text())
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config["max_position_embeddings"] = 32768
    (folder / "config.json").write_text(json.dumps(config))
    return sw.compile(
        folder,
        pef_name="slow",
        generate=True,
        batch_size=1,
        seq=32768,
        prompts=[8],
        output_folder=folder / "out",
    )


ENDLESS = {"prompt": "ab", "temperature": 0, "max_tokens": 30000}


def test_a_client_that_goes_frees_its_slot(slow):
    server = Server(slow)
    for stream in (True, False):
        with server.begin(ENDLESS | {"stream": stream}) as running:
            server.wait_for("shardwright_busy_slots", 1)
            if stream:
                assert running.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
            waiting = server.begin(ENDLESS | {"stream": stream})
            server.wait_for("shardwright_queue_length", 1)
            waiting.close()
            server.wait_for("shardwright_queue_length", 0)
        server.wait_for("shardwright_busy_slots", 0)
    assert server.metric("shardwright_cancelled_total") >= 2
    stream = server.client.completions.create(model="slow", stream=True, **ENDLESS)
    next(stream)
    stream.close()
    server.wait_for("shardwright_busy_slots", 0)
    assert completed_by(server, "slow")
    assert server.end() == 0


def completed_by(server, model):
    return server.client.completions.create(model=model, prompt="a", max_tokens=2).choices[0].text


def test_the_queue_is_bounded_and_first_come_first_served(slow):
    server = Server(slow, "--max-queue", "1")
    with server.begin(ENDLESS):
        server.wait_for("shardwright_busy_slots", 1)
        waiting = server.begin({"prompt": "a", "max_tokens": 2})
        server.wait_for("shardwright_queue_length", 1)
        with pytest.raises(openai.RateLimitError, match="too many requests wait for a slot"):
            completed_by(server, "slow")
    assert waiting.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    waiting.close()
    assert server.end() == 0


def test_sigterm_finishes_what_runs_and_refuses_what_comes(slow):
    server = Server(slow)
    body = {"prompt": "ab", "temperature": 0, "max_tokens": 2000}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.client.completions.create, model="slow", **body)
        server.wait_for("shardwright_busy_slots", 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.request("GET", "/health")[0] == 503, "it knows the signal")
        assert server.refused({"prompt": "a"}) == (
            503,
            "the server is shutting down: ask again when it is back",
        )
        assert running.result().usage.completion_tokens == 2000
    assert server.process.wait(60) == 0


def test_sigterm_ends_what_takes_too_long(slow):
    server = Server(slow, "--drain-seconds", "0")
    with server.begin(ENDLESS) as whole, server.begin(ENDLESS | {"stream": True}) as stream:
        server.wait_for("shardwright_queue_length", 1)
        assert server.end() == 0
        answers = [s.makefile("rb").read() for s in (whole, stream)]
    assert sorted(answer[:12] for answer in answers) == [b"HTTP/1.1 200", b"HTTP/1.1 503"]
    assert all(b"the server is shutting down: ask again" in answer for answer in answers)


def test_a_second_signal_ends_it_at_once(slow):
    server = Server(slow)
    with server.begin(ENDLESS):
        server.wait_for("shardwright_busy_slots", 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.request("GET", "/health")[0] == 503, "it knows the signal")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == -signal.SIGTERM


def test_api_key(pef):
    server = Server(pef, env={"SHARDWRIGHT_API_KEY": "secret"})
    with open(f"/proc/{server.process.pid}/cmdline") as file:
        assert "secret" not in file.read()
    with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
        completed(server)
    assert server.request("GET", "/v1/models")[0] == 401
    assert server.request("GET", "/health")[0] == 200
    server.client = server.client.with_options(api_key="secret")
    assert completed(server).choices[0].text
    assert server.end() == 0


def test_mistakes_of_the_command_line(pef, tmp_path):
    code, text = error("serve", pef.path, "--port", "70000")
    assert (code, text) == (
        2,
        "error: --port 70000: give a port up to 65535, or 0 for any free one",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = error("serve", pef.path, "--port", port)
    assert (code, text) == (
        2,
        f"error: --host 127.0.0.1 --port {port}: Address already in use; --host 127.0.0.1 --port 0 "
        "takes any free port",
    )
    code, text = error("serve", pef.path, "--n-chips", "3")
    assert code == 2 and text.startswith("error: --n-chips 3 contradicts the PEF"), text
    code, text = error("serve", pef.path, "--seq", "63")
    assert code == 2 and "--seq 63 contradicts the PEF, which was compiled with --seq 64" in text
    code, text = error("serve", pef.path, env={"SHARDWRIGHT_PYTHON": "/bin/false"})
    assert code == 2 and text.endswith("to a Python that has it); /bin/false has none"), text
    mlp = sw.compile("tests/data/mlp.pt2", inference=True, output_folder=tmp_path, pef_name="mlp")
    code, text = error("serve", mlp.path)
    assert code == 2 and "holds no tokenizer, so it can't serve text" in text, text


@pytest.mark.slow
def test_a_thousand_requests(server):
    want = {TEXT: completed(server, max_tokens=8).choices[0].text}
    check_a_thousand_requests(server, want, max_tokens=8, too_long="x" * 100)


@pytest.mark.slow
def test_a_thousand_requests_to_smollm2(tmp_path):
    """The real model, whose steps take long enough for requests to meet in its slots."""
    pef = sw.compile(
        huggingface.smollm2(),
        pef_name="smollm2",
        generate=True,
        precision="bf16",
        batch_size=8,
        seq=32,
        prompts=[8],
        output_folder=tmp_path,
        tensor_parallel="weight",
        n_chips=2,
    )
    prompts = ["The capital of France is", "Once upon a time", "Water boils at", "1, 2, 3, 5,"]
    server, alone = Server(pef), {}
    for prompt in prompts:
        answer = server.client.completions.create(
            model="smollm2", prompt=prompt, max_tokens=3, temperature=0
        )
        alone[prompt] = answer.choices[0].text
    assert len(set(alone.values())) == len(prompts), "a mix-up would be seen"
    check_a_thousand_requests(server, alone, max_tokens=3, too_long="word " * 100)
    assert server.end() == 0


def check_a_thousand_requests(server, want: dict[str, str], *, max_tokens: int, too_long: str):
    """Sixteen at once, with clients that go, nonsense, and prompts too long: each gets its answer,
    `want` by prompt, and nothing is left behind."""
    seed = random.randrange(2**32)
    print("seed", seed)
    lock, done = threading.Lock(), {}

    def ask(i: int) -> None:
        chance = random.Random(seed + i)
        kind = chance.choice(["text"] * 4 + ["gone", "stream gone", "bad", "long"])
        prompt = chance.choice(list(want))
        body = {"prompt": prompt, "temperature": 0, "max_tokens": max_tokens}
        if kind == "text":
            status, text = server.request("POST", "/v1/completions", json.dumps(body))
            assert status == 200 and json.loads(text)["choices"][0]["text"] == want[prompt]
        elif kind == "bad":
            assert server.refused(b'{"prompt": ')[0] == 400
        elif kind == "long":
            assert server.refused(body | {"prompt": too_long})[0] == 400
        else:
            gone = body | {"max_tokens": 5 * max_tokens, "stream": kind == "stream gone"}
            server.begin(gone).close()
        with lock:
            done[kind] = done.get(kind, 0) + 1

    def ask_many(first: int, count: int) -> int:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(first, first + count)))
        server.wait_for("shardwright_busy_slots", 0)
        server.wait_for("shardwright_queue_length", 0)
        return server.rss_bytes()

    warm = ask_many(0, 200)
    grown = ask_many(200, 1000) - warm
    print(done, f"{grown} bytes more after 1000 requests, at {warm}")
    assert grown < 8 << 20, f"{grown} bytes"
    with open(f"/proc/{server.process.pid}/status") as file:
        assert int(re.search(r"Threads:\s+(\d+)", file.read())[1]) < 64
    until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) < 40, "files are closed")
