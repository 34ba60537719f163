# The promise: the same answer as PyTorch at every number of chips, in both modes, for every model.
from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from compare import divergence, relative
from zoo import ZOO

import shardwright as sw
from shardwright import capture

CHIPS = list(range(1, 9))
BATCH = 9  # divides by none of 2, 4..8
# bf16 against f32, relative in the 2-norm: PyTorch's tolerance of an operator; its own bf16 is off
# by up to 1e-2 on these models.
BF16_TOLERANCE = 1.6e-2
# Logits of random weights hardly differ from each other (0.1): any distribution would do. They are
# scaled to the standard deviation of SmolLM2's.
SPREAD = 3.0


class Subject:
    """A model of the zoo with its inputs, what PyTorch gives, and its PEFs, each made once."""

    def __init__(self, entry, folder):
        self.entry, self.folder = entry, folder
        self.model, self.inputs = entry.model(), entry.inputs(batch=BATCH)
        with torch.no_grad():
            self.want = self.output(self.model(**self.inputs))
        self.pefs: dict = {}

    @functools.cached_property
    def limit(self) -> float:
        """max(1e-5, 4 x the error of PyTorch's f32 against its f64)"""
        wide = capture.cast_inputs(self.inputs, torch.float64)
        with torch.no_grad():
            f64 = self.output(self.entry.model().double()(**wide))
        return max(1e-5, 4 * relative(self.want, f64))

    @property
    def is_language_model(self) -> bool:
        return "input_ids" in self.inputs and self.entry.output == "logits"

    def output(self, results) -> np.ndarray:
        name = self.entry.output
        return (results[name] if isinstance(results, dict) else getattr(results, name)).numpy()

    def pef(self, mode: str, precision: str = "f32", n_chips=CHIPS):
        """One PEF with a plan for each number of chips; a precision is captured once."""
        key = (mode, precision)
        if key not in self.pefs:
            path = self.folder / f"{precision}.pt2"
            if not path.exists():
                dtype = capture.dtype_of(precision)
                model = (
                    self.model if precision == "f32" else capture.cast(self.entry.model(), dtype)
                )
                inputs = capture.cast_inputs(self.inputs, dtype)
                capture.save(capture.capture_forward(model, inputs), path)
            self.pefs[key] = sw.compile(
                path,
                pef_name=f"{mode}_{precision}",
                tensor_parallel=mode,
                n_chips=n_chips,
                inference=True,
                output_folder=self.folder,
            )
        return self.pefs[key]

    def run(self, session) -> np.ndarray:
        (graph,) = session.info["graphs"]
        bf16 = any(given["dtype"] == "bf16" for given in graph["inputs"])
        inputs = capture.cast_inputs(self.inputs, torch.bfloat16 if bf16 else torch.float32)
        return session.run(inputs)[self.entry.output].float().numpy()


@pytest.fixture(scope="module", params=ZOO, ids=lambda entry: entry.name)
def subject(request, tmp_path_factory):
    return Subject(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """captured(name): a language model of the zoo at batch 4, its file and its inputs."""
    folder = tmp_path_factory.mktemp("captured")

    @functools.cache
    def capture_once(name: str):
        entry = next(e for e in ZOO if e.name == name)
        inputs = entry.inputs(batch=4)
        program = capture.capture_forward(entry.model(), inputs)
        return capture.save(program, folder / f"{name}.pt2"), inputs

    return capture_once


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_equals_pytorch_at_every_n(subject, mode):
    one = None
    for n in CHIPS:
        got = subject.run(sw.load(subject.pef(mode), n_chips=n))
        one = got if one is None else one
        assert got.shape == subject.want.shape
        assert relative(got, subject.want) <= subject.limit, f"{n} chips against PyTorch"
        assert relative(got, one) <= 1e-5, f"{n} chips against one"


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_bf16(subject, mode):
    """Against PyTorch's f32: of language models the distribution of the next token too."""
    pef = subject.pef(mode, "bf16", n_chips=[1, 2, 3])
    for n in (1, 2, 3):
        got = subject.run(sw.load(pef, n_chips=n))
        assert relative(got, subject.want) <= BF16_TOLERANCE, f"{n} chips"
        if subject.is_language_model:
            scale = SPREAD / subject.want.std()
            assert divergence(scale * got, scale * subject.want) < 1e-2, f"{n} chips"
            assert divergence(0 * got, scale * subject.want) > 1, "any answer would do"


def test_weights_are_split_and_come_back_whole(subject):
    state = {name: value.detach().numpy() for name, value in subject.model.named_parameters()}
    pef = subject.pef("weight")
    for n in (2, 3):
        parameters = sw.load(pef, n_chips=n).parameters()
        for name, value in state.items():
            if name in parameters:
                np.testing.assert_array_equal(parameters[name], value, err_msg=f"{name}, {n} chips")
        assert len(set(state) & set(parameters)) >= 0.9 * len(state)
    for plan in report(pef)["plans"]:
        if plan["n_chips"] in (2, 3):
            check_shares(plan)


def check_shares(plan: dict) -> None:
    """A split weight's largest piece is its n-th part and at most 16 rows more: of KV heads
    (12 rows here) that the query heads of a chip only touch, all rows are there."""
    split = 0
    for weight in plan["graphs"][0]["weights"]:
        rows = weight["rows_per_chip"]
        if rows:
            split += 1
            dim = int(weight["state"].split("(")[1].split(")")[0].split(",")[0])
            assert max(rows) <= weight["shape"][dim] / plan["n_chips"] + 16, weight
            assert sum(rows) >= weight["shape"][dim], weight
    assert split > 0


def test_compiling_twice_gives_the_same_bytes(captured, tmp_path):
    path, _ = captured("llama_9_3")
    files = []
    for folder in ("a", "b"):
        pef = sw.compile(
            path,
            pef_name="x",
            tensor_parallel="weight",
            n_chips=[1, 2],
            inference=True,
            output_folder=tmp_path / folder,
        )
        files.append(pef.path.read_bytes())
    assert files[0] == files[1]


def report(pef) -> dict:
    """`inspect --json` of the program, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "inspect", "--json", str(pef.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_exchanges_are_the_closed_form(n, captured, tmp_path):
    """Weight mode: 2L + 1 sums of B x S x D, each an all_reduce or a reduce_scatter with its
    all_gather; batch mode: none."""
    layers, batch, seq, hidden = 2, 4, 16, 48
    path, _ = captured("llama_6_2")
    pef = sw.compile(
        path,
        pef_name="w",
        tensor_parallel="weight",
        n_chips=n,
        inference=True,
        output_folder=tmp_path,
    )
    (graph,) = report(pef)["plans"][0]["graphs"]
    size = 4 * batch * seq * hidden
    big = [e for e in graph["exchanges"] if e["bytes"] == size]
    kinds = [e["kind"] for e in big]
    assert len(big) == len(graph["exchanges"]), graph["exchanges"]
    assert kinds.count("all_reduce") + kinds.count("reduce_scatter") == 2 * layers + 1
    assert kinds.count("reduce_scatter") == kinds.count("all_gather")
    for e in big:  # received by all chips together
        share = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}[e["kind"]]
        one_shot = (n - 1) * n * size
        assert e["bytes_moved"] in (share * (n - 1) * size, one_shot), e
    pef = sw.compile(
        path,
        pef_name="b",
        tensor_parallel="batch",
        n_chips=n,
        inference=True,
        output_folder=tmp_path,
    )
    (graph,) = report(pef)["plans"][0]["graphs"]
    assert graph["exchanges"] == []


def test_weight_mode_finds_the_best_nlp_layout(captured, tmp_path):
    """M4: QKV = M, projection = K, FFN0 = M, FFN1 = K, embedding and head by vocabulary."""
    want = {
        "q_proj": "m",
        "k_proj": "m",
        "v_proj": "m",
        "o_proj": "k",
        "gate_proj": "m",
        "up_proj": "m",
        "down_proj": "k",
        "embed_tokens": "v",
        "lm_head": "m",
    }
    path, _ = captured("llama_6_2")
    pef = sw.compile(
        path,
        pef_name="x",
        tensor_parallel="weight",
        n_chips=[2, 4],
        inference=True,
        output_folder=tmp_path,
    )
    for plan in report(pef)["plans"]:
        for weight in plan["graphs"][0]["weights"]:
            part = weight["name"].split(".")[-2]
            if part in want:
                assert weight["factor"] == want[part], weight


def test_memory_is_what_was_planned(captured, tmp_path):
    path, _ = captured("llama_9_3")
    pef = sw.compile(
        path,
        pef_name="x",
        tensor_parallel="weight",
        n_chips=3,
        inference=True,
        output_folder=tmp_path,
    )
    planned = report(pef)["plans"][0]["chips"]
    for used, plan in zip(sw.load(pef).info["memory"], planned):
        assert used["parameters"] == plan["weights_bytes"] and used["arena"] == plan["arena_bytes"]


def test_eight_chips_on_few_cores_give_the_same_bits_twice(captured, tmp_path):
    path, inputs = captured("llama_9_3")
    pef = sw.compile(
        path,
        pef_name="x",
        tensor_parallel="weight",
        n_chips=8,
        inference=True,
        output_folder=tmp_path,
    )
    session = sw.load(pef)
    first = session.run(inputs)["logits"]
    for _ in range(20):
        assert torch.equal(session.run(inputs)["logits"], first)


def test_inspect_folds_the_layers(captured, tmp_path):
    """What differs only in a layer's number is one line, weights and transfers alike."""
    path, _ = captured("llama_6_2")
    pef = sw.compile(
        path,
        pef_name="x",
        tensor_parallel="weight",
        n_chips=2,
        inference=True,
        output_folder=tmp_path,
    )
    shown = subprocess.run(
        [sys.executable, "-m", "shardwright", "inspect", str(pef.path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    transfers = shown[shown.index("transfer ") : shown.index("transfers in ")]
    assert "layers.*" in transfers
    assert "layers.0" not in transfers and "layers.1" not in transfers, transfers
