# The promise: the same answer as PyTorch at every number of chips, in both modes, for every model.
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from zoo import ZOO

import shardwright as sw
from shardwright import capture

CHIPS = list(range(1, 9))
BATCH_FOR_BATCH_MODE = 9  # divides by none of 2, 4..8


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want| in the 2-norm"""
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def pytorch(entry, batch: int):
    """The model, its inputs, its f32 output, and the limit for ours: max(1e-5, 4 x the error of
    PyTorch's f32 against its f64)."""
    model, inputs = entry.model(), entry.inputs(batch=batch)
    with torch.no_grad():
        f32 = output(model(**inputs), entry.output)
        wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        f64 = output(entry.model().double()(**wide), entry.output)
    return model, inputs, f32, max(1e-5, 4 * relative(f32, f64))


def output(results, name: str) -> np.ndarray:
    value = results[name] if isinstance(results, dict) else getattr(results, name)
    return value.numpy()


@pytest.fixture(scope="module", params=ZOO, ids=lambda entry: entry.name)
def entry(request):
    return request.param


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_equals_pytorch_at_every_n(entry, mode, tmp_path):
    model, inputs, want, limit = pytorch(entry, BATCH_FOR_BATCH_MODE if mode == "batch" else 2)
    pef = sw.compile(
        model,
        inputs,
        pef_name=entry.name,
        tensor_parallel=mode,
        n_chips=CHIPS,
        inference=True,
        output_folder=tmp_path,
    )
    one = None
    for n in CHIPS:
        session = sw.load(pef, n_chips=n)
        got = session.run(inputs)[entry.output].numpy()
        one = got if one is None else one
        assert got.shape == want.shape
        assert relative(got, want) <= limit, f"{n} chips against PyTorch"
        assert relative(got, one) <= 1e-5, f"{n} chips against one"


def test_weights_are_split_and_come_back_whole(entry, tmp_path):
    model, inputs = entry.model(), entry.inputs()
    pef = sw.compile(
        model,
        inputs,
        pef_name="x",
        tensor_parallel="weight",
        n_chips=[2, 3],
        inference=True,
        output_folder=tmp_path,
    )
    state = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for n in (2, 3):
        session = sw.load(pef, n_chips=n)
        parameters = session.parameters()
        for name, value in state.items():
            if name in parameters:
                np.testing.assert_array_equal(parameters[name], value, err_msg=f"{name}, {n} chips")
        assert len(set(state) & set(parameters)) >= 0.9 * len(state)
    for plan in report(pef)["plans"]:
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


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_bf16_by_the_distribution_of_the_next_token(mode, tmp_path):
    """KL of the next token, bf16 against PyTorch's f32, below 1e-2, at 1 and 3 chips."""
    chosen = next(e for e in ZOO if e.name == "llama_9_3")
    model, inputs = chosen.model(), chosen.inputs(batch=4)
    with torch.no_grad():
        want = torch.log_softmax(model(**inputs).logits.double(), -1)
    pef = sw.compile(
        model,
        inputs,
        pef_name="x",
        tensor_parallel=mode,
        n_chips=[1, 3],
        inference=True,
        precision="bf16",
        output_folder=tmp_path,
    )
    for n in (1, 3):
        got = torch.log_softmax(sw.load(pef, n_chips=n).run(inputs)["logits"].double(), -1)
        kl = (want.exp() * (want - got)).sum(-1).mean().item()
        assert kl < 1e-2, f"{n} chips"


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    entry = ZOO[0]
    path = capture.save(
        capture.capture_forward(entry.model(), entry.inputs()), tmp_path / "model.pt2"
    )
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
def test_exchanges_are_the_closed_form(n, tmp_path):
    """Weight mode: 2L + 1 sums of B x S x D, each an all_reduce or a reduce_scatter with its
    all_gather; batch mode: none."""
    entry = next(e for e in ZOO if e.name == "llama_6_2")
    layers, batch, seq, hidden = 2, 2, 16, 48
    inputs = entry.inputs(batch=max(batch, n))
    batch = max(batch, n)
    pef = sw.compile(
        entry.model(),
        inputs,
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
        entry.model(),
        inputs,
        pef_name="b",
        tensor_parallel="batch",
        n_chips=n,
        inference=True,
        output_folder=tmp_path,
    )
    (graph,) = report(pef)["plans"][0]["graphs"]
    assert graph["exchanges"] == []


def test_weight_mode_finds_the_best_nlp_layout(tmp_path):
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
    entry = next(e for e in ZOO if e.name == "llama_6_2")
    pef = sw.compile(
        entry.model(),
        entry.inputs(),
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


def test_memory_is_what_was_planned(tmp_path):
    entry = ZOO[0]
    pef = sw.compile(
        entry.model(),
        entry.inputs(),
        pef_name="x",
        tensor_parallel="weight",
        n_chips=3,
        inference=True,
        output_folder=tmp_path,
    )
    planned = report(pef)["plans"][0]["chips"]
    for used, plan in zip(sw.load(pef).info["memory"], planned):
        assert used["parameters"] == plan["weights_bytes"] and used["arena"] == plan["arena_bytes"]


def test_eight_chips_on_few_cores_give_the_same_bits_twice(tmp_path):
    entry = ZOO[0]
    inputs = entry.inputs()
    pef = sw.compile(
        entry.model(),
        inputs,
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


def test_inspect_folds_the_layers(tmp_path):
    """What differs only in a layer's number is one line, weights and transfers alike."""
    entry = next(e for e in ZOO if e.name == "llama_6_2")
    pef = sw.compile(
        entry.model(),
        entry.inputs(),
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
