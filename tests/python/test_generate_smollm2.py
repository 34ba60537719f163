# SmolLM2-135M writes what PyTorch writes, token for token, at every n.
from __future__ import annotations

import json
import subprocess
import sys

import pytest

import shardwright as sw
from shardwright import capture, huggingface

pytestmark = pytest.mark.slow

NEW = 48
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "Water boils at",
    "The three laws of motion say that",
    "A matrix is invertible if",
    "My favourite season is autumn because",
    "To bake bread, first",
    "In 1969,",
    "The difference between a list and a tuple in Python is",
    "Photosynthesis is the process by which",
    "Dear Sir or Madam,",
    "The quick brown fox",
    "Hello",
    "1, 2, 3, 5, 8,",
    "The Roman Empire fell when",
    "Light travels faster than",
    "She opened the door and",
    "Question: What is a chip? Answer:",
    "The largest planet of the solar system is",
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """Captured file for three sequences, and PyTorch's tokens and top-2 gaps for each prompt."""
    folder = tmp_path_factory.mktemp("smollm2")
    source = huggingface.smollm2()
    model, tokenizer = huggingface.load(source), huggingface.tokenizer(source)
    prompts, want = [], []
    for text in PROMPTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        out = model.generate(
            ids,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        gaps = [(top[0] - top[1]).item() for top in (step[0].topk(2).values for step in out.logits)]
        # min_new_tokens forbids the end of a text: there the likeliest token is another one.
        ended = [step[0].argmax().item() == tokenizer.eos_token_id for step in out.logits]
        stop = ended.index(True) if True in ended else NEW
        prompts.append(ids[0].tolist())
        want.append((out.sequences[0, ids.shape[1] :].tolist()[:stop], gaps))
    path = capture.save(huggingface.capture_generate(model, 3, 96, [32]), folder / "three.pt2")
    return path, prompts, want


def check_same(got: list[int], want: tuple[list[int], list[float]], what: str) -> None:
    tokens, gaps = want
    for i, (mine, theirs) in enumerate(zip(got, tokens)):
        if mine != theirs:
            assert gaps[i] < 1e-3, f"{what}: token {i} is {mine}, not {theirs}; gap {gaps[i]}"
            return


MEMORY = """
import json, sys
import shardwright as sw

session = sw.load(sys.argv[1], n_chips=int(sys.argv[2]))
list(session.generate([[1, 2, 3]], max_new_tokens=2, stop_tokens=[]))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps([peak, session.info["memory"]]))
"""


@pytest.mark.parametrize("n", [1, 2])
def test_a_process_takes_the_memory_that_was_computed(smollm2, tmp_path, n):
    pef = sw.compile(
        smollm2[0], generate=True, tensor_parallel="weight", n_chips=n, output_folder=tmp_path
    )
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, pef, str(n)], capture_output=True, text=True, check=True
    )
    peak, chips = json.loads(done.stdout)
    computed = sum(sum(chip[k] for k in ("parameters", "arena", "scratch")) for chip in chips)
    assert peak < 1.05 * computed + 50e6


def test_tokens_are_pytorch_s_at_every_n(smollm2, tmp_path):
    path, prompts, want = smollm2
    chips = [1, 2, 3, 4, 5, 8]
    pef = sw.compile(
        path, generate=True, tensor_parallel="weight", n_chips=chips, output_folder=tmp_path
    )
    for n in chips:
        session = sw.load(pef, n_chips=n)
        for first in range(0, len(prompts), 3):
            rows = prompts[first : first + 3]
            got = [[] for _ in rows]
            for row, token in session.generate(rows, max_new_tokens=NEW, stop_tokens=[]):
                got[row].append(token)
            for row, tokens in enumerate(got):
                what = f"{n} chips, {PROMPTS[first + row]!r}"
                check_same(tokens, want[first + row], what)
        # Alone it is the same: what stands beside a sequence does not touch it.
        alone = list(session.generate([prompts[0]], max_new_tokens=NEW, stop_tokens=[]))
        check_same([token for _, token in alone], want[0], f"{n} chips, alone")
