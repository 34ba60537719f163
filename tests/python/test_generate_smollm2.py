# SmolLM2-135M writes what PyTorch writes, token for token, at every n.
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from compare import divergence, relative

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
    check_tokens(smollm2, smollm2[0], tmp_path, side_by_side=3, chips=[1, 2, 3, 4, 5, 8])


def test_tokens_of_one_sequence_are_pytorch_s(smollm2, tmp_path):
    program = huggingface.capture_generate(huggingface.load(huggingface.smollm2()), 1, 96, [32])
    path = capture.save(program, tmp_path / "one.pt2")
    check_tokens(smollm2, path, tmp_path, side_by_side=1, chips=[1, 2])


def check_tokens(smollm2, path, folder, *, side_by_side: int, chips: list[int]) -> None:
    _, prompts, want = smollm2
    pef = sw.compile(
        path, generate=True, tensor_parallel="weight", n_chips=chips, output_folder=folder
    )
    for n in chips:
        session = sw.load(pef, n_chips=n)
        for first in range(0, len(prompts), side_by_side):
            rows = prompts[first : first + side_by_side]
            got = [[] for _ in rows]
            for row, token in session.generate(rows, max_new_tokens=NEW, stop_tokens=[]):
                got[row].append(token)
            for row, tokens in enumerate(got):
                what = f"{n} chips, {PROMPTS[first + row]!r}"
                check_same(tokens, want[first + row], what)
        # Alone it is the same: what stands beside a sequence does not touch it.
        alone = list(session.generate([prompts[0]], max_new_tokens=NEW, stop_tokens=[]))
        check_same([token for _, token in alone], want[0], f"{n} chips, alone")


TEXT = """The lighthouse stood on a rock two miles from the harbour, and for most of the year
nobody visited it but the boat that brought oil, flour and letters. Its keeper, a woman named
Margaret Hale, had learned to read the weather from the colour of the water: green before rain,
grey before wind, and a flat, oily silver before the storms that closed the port. She wrote all of
it down. Her notebooks, which her sister later gave to the university, hold thirty years of
measurements, taken three times a day, of temperature, air pressure, and the height of the waves.
When researchers compared them with modern records in 1987, they found that the sea around the rock
had become warmer by almost one degree. "What surprised us," one of them said, "was not the change
itself, but how carefully she had recorded it, without any idea of what it would be used for."
Today the light works by itself. A small computer turns it on at dusk, checks the lamp every hour,
and sends a message to the coast guard if something is wrong. But the notebooks are still there, in
a glass case on the second floor, open at the page of the last day of her life as a keeper: wind
from the west, two degrees above freezing, nothing to report."""
PROMPT_TOKENS = 32


def logits_of_text(path, ids: list[int], folder, **options):
    """f32 (tokens, V) behind each token from PROMPT_TOKENS - 1 on: the first by the prompt graph,
    the others by the decode graph, which is told the text's own tokens."""
    pef = sw.compile(path, generate=True, output_folder=folder, **options)
    session = sw.load(pef)
    prompt = {"input_ids": ids[:PROMPT_TOKENS], "position": range(PROMPT_TOKENS)}
    inputs = {name: np.array([values]) for name, values in prompt.items()}
    inputs["last"] = np.array([PROMPT_TOKENS - 1])
    rows = [session.run(inputs, f"prompt_{PROMPT_TOKENS}")["logits"][0, 0]]
    for place in range(PROMPT_TOKENS, len(ids)):
        inputs = {"input_ids": np.array([[ids[place]]]), "position": np.array([[place]])}
        rows.append(session.run(inputs, "decode")["logits"][0, 0])
    return np.stack(rows)


def test_bf16_and_int8_give_the_distribution_of_f32_through_the_cache(tmp_path):
    source = huggingface.smollm2()
    model = huggingface.load(source)
    ids = huggingface.tokenizer(source)(TEXT).input_ids
    assert len(ids) > 200
    with torch.no_grad():
        pytorch = model(torch.tensor([ids]), use_cache=False).logits[0, PROMPT_TOKENS - 1 :].numpy()
    paths = {}
    for precision in ("f32", "bf16"):
        model = capture.cast(model, capture.dtype_of(precision))
        programs = huggingface.capture_generate(model, 1, len(ids), [PROMPT_TOKENS])
        paths[precision] = capture.save(programs, tmp_path / f"{precision}.pt2")
    f32 = logits_of_text(paths["f32"], ids, tmp_path)
    assert relative(f32, pytorch) < 1e-4
    assert divergence(np.zeros_like(f32), f32) > 1, "any answer would do"
    for name, precision, options, most in (
        ("bf16", "bf16", {}, 1e-2),
        ("int8", "f32", {"precision": "int8"}, 2e-2),
        ("int8 of bf16", "bf16", {"precision": "int8"}, 2e-2),
    ):
        kl = divergence(logits_of_text(paths[precision], ids, tmp_path, **options), f32)
        print(f"{name}: KL {kl:.2e} over {len(f32)} tokens")
        assert kl < most, name
