# A server in a process of its own, for a tiny model with a tokenizer.
from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import openai
import tokenizers
import transformers
from tokenizers import decoders, models
from zoo import ZOO

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('no role bad') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
)


def tokenizer() -> tokenizers.Tokenizer:
    """One token a character, 0 for what it does not know."""
    letters = [chr(c) for c in range(32, 127)] + ["é"]
    vocabulary = {"<end>": 0, **{letter: i + 1 for i, letter in enumerate(letters)}}
    letters = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<end>"))
    letters.decoder = decoders.Fuse()
    return letters


def write_model(folder) -> None:
    """A Hugging Face folder: a Llama of the zoo with that tokenizer."""
    model = next(entry for entry in ZOO if entry.name == "llama_9_3").model()
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(folder)


class Server:
    """The program in a process of its own, at a free port."""

    def __init__(self, pef, *options, env=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SHARDWRIGHT_")}
        command = [
            sys.executable,
            "-m",
            "shardwright",
            "serve",
            os.fspath(pef),
            "--port",
            "0",
            "--json",
        ]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, env=clean | (env or {}), text=True
        )
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}"
        self.url = json.loads(line)["url"]
        self.address = urlsplit(self.url).netloc
        self.client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=60)

    def request(self, method, path, body=None, headers=()):
        """(status, text) of a raw request."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode()

    def refused(self, body, path="/v1/completions") -> tuple[int, str]:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, text = self.request("POST", path, body)
        return status, json.loads(text)["error"]["message"]

    def metric(self, name: str) -> float:
        text = self.request("GET", "/metrics")[1]
        return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.M)))

    def wait_for(self, name: str, value: float) -> None:
        until(lambda: self.metric(name) == value, f"{name} {value}")

    def rss_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def begin(self, body) -> socket.socket:
        """A request whose answer is left to the caller, or to nobody."""
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        return connection

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def until(true, what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
