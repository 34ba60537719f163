# The process of one peer: loads once, then times what it is asked for, one JSON line each way.
"""python worker.py PEER '{"folder": .., "gguf": .., "precision": .., "threads": .., ...}'

Says {"figures": [..], "about": ".."} when it has loaded. Then each request
{"figure": .., "work": "prefill" | "decode", "batch": B, "prompt": tokens, "new": n, "time": bool}
is answered by {"seconds": .., "tokens": [first row's new tokens], "since_load_s": ..}, the last
from when the peer's libraries were imported and it began to load, or by {"error": ".."}.
"ids": [..] in place of "batch" and "prompt" is a prompt of one row.

A peer's file has a class `Peer(settings)` with `figures`, `about` and, for each figure,
    prefill(figure, ids) -> the token that follows the first row
    decode(figure, ids, n) -> (seconds for n steps behind the prompt, tokens of the first row)
with ids i64 (B, tokens), and close() where it has processes of its own to end. What it can't do it
refuses with an error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback

import numpy as np

ENOUGH_S = 0.4  # what took less is timed again: its threads and caches are warm then
MOST_TIMES = 3


def prompt(batch: int, tokens: int, vocab: int) -> np.ndarray:
    """The same for everyone: i64 (batch, tokens), rows that differ."""
    rows, columns = np.arange(batch)[:, None], np.arange(tokens)[None]
    return (columns * 37 + rows * 101 + 11) % vocab


def answer(peer, request: dict, vocab: int) -> dict:
    if "ids" in request:
        ids = np.array([request["ids"]], dtype=np.int64)
    else:
        ids = prompt(request["batch"], request["prompt"], vocab)
    seconds, spent, times = float("inf"), 0.0, 0
    while times == 0 or (request["time"] and spent < ENOUGH_S and times < MOST_TIMES):
        start = time.perf_counter()
        if request["work"] == "prefill":
            tokens = [peer.prefill(request["figure"], ids)]
            took = time.perf_counter() - start
        else:
            took, tokens = peer.decode(request["figure"], ids, request["new"])
        seconds = min(seconds, took)
        spent += time.perf_counter() - start
        times += 1
    return {"seconds": seconds, "tokens": [int(token) for token in tokens]}


def main() -> None:
    # What libraries print goes to the log; the answers have the real standard output.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    try:
        kind = importlib.import_module(f"{name}_peer").Peer
        loading_s = time.perf_counter()
        peer = kind(settings)
        hello = {"figures": peer.figures, "about": peer.about}
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        return
    print(json.dumps(hello), file=answers)
    for line in sys.stdin:
        try:
            reply = answer(peer, json.loads(line), settings["vocab"])
            reply["since_load_s"] = time.perf_counter() - loading_s
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers)
    if hasattr(peer, "close"):
        peer.close()


if __name__ == "__main__":
    main()
