# Fusion: the same answers at -o0 and -o3, the groups that -o3 must find, and their memory.
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from zoo import ZOO

import shardwright as sw
from shardwright import capture

CHIPS = [1, 2, 3]


@pytest.fixture(scope="module", params=ZOO, ids=lambda entry: entry.name)
def entry(request):
    return request.param


@pytest.fixture(scope="module")
def captured(entry, tmp_path_factory):
    inputs = entry.inputs(batch=3)
    path = tmp_path_factory.mktemp(entry.name) / "model.pt2"
    return capture.save(capture.capture_forward(entry.model(), inputs), path), inputs


def compile_at(captured, folder, optimization: int, mode: str = "weight", chips=CHIPS):
    return sw.compile(
        captured,
        pef_name="x",
        tensor_parallel=mode,
        n_chips=chips,
        inference=True,
        optimization=optimization,
        output_folder=folder / str(optimization),
    )


def relative(got: np.ndarray, want: np.ndarray) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def graphs_of(pef) -> list[dict]:
    """Of each plan, its only graph as `inspect --json` shows it."""
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "inspect", "--json", str(pef.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [{**p["graphs"][0], "chips": p["chips"]} for p in json.loads(done.stdout)["plans"]]


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_o3_gives_what_o0_gives(entry, captured, mode, tmp_path):
    path, inputs = captured
    alone = compile_at(path, tmp_path, 0, mode)
    fused = compile_at(path, tmp_path, 3, mode)
    for n in CHIPS:
        want = sw.load(alone, n_chips=n).run(inputs)[entry.output].numpy()
        session = sw.load(fused, n_chips=n)
        got = session.run(inputs)[entry.output].numpy()
        assert relative(got, want) <= 1e-5, f"{n} chips"
        np.testing.assert_array_equal(session.run(inputs)[entry.output].numpy(), got)
    for plan in graphs_of(alone):
        assert plan["groups"] == []
    for used, plan in zip(session.info["memory"], graphs_of(fused)[-1]["chips"], strict=True):
        assert used["parameters"] == plan["weights_bytes"] and used["arena"] == plan["arena_bytes"]


def test_every_group_of_one_chip_is_one_step(captured, tmp_path):
    """-o3 marks what our kernels can run: on one chip nothing divides a group."""
    (graph,) = graphs_of(compile_at(captured[0], tmp_path, 3, chips=[1]))
    assert graph["groups"]
    for group in graph["groups"]:
        assert (group["steps"], group["why_not_one"]) == (1, ""), group
        assert group["saved_bytes_per_chip"][0] > 0, group


def test_llama_has_the_groups_of_a_decoder(tmp_path):
    """Per layer: q, k, v; rope of q and of k; projection, residual and norm; gate, up and their
    product; down projection, residual and the next norm. On several chips a sum between chips
    divides the two that end in a residual."""
    entry = next(e for e in ZOO if e.name == "llama_6_2")
    inputs = entry.inputs()
    path = capture.save(capture.capture_forward(entry.model(), inputs), tmp_path / "model.pt2")
    rope = ["add", "cat", "mul", "mul", "neg"]
    residual = ["add", "linear", "rms_norm"]
    layer = [
        ["linear"] * 3,
        rope,
        rope,
        residual,
        ["linear", "linear", "mul", "silu"],
        residual,
    ]
    for graph in graphs_of(compile_at(path, tmp_path, 3, chips=[1, 2])):
        groups = sorted((sorted(g["members"]), g["steps"]) for g in graph["groups"])
        divided = 1 if len(graph["chips"]) == 1 else 2
        wanted = sorted((m, divided if m == residual else 1) for m in 2 * layer)
        assert groups == wanted
        for group in graph["groups"]:
            assert group["origin"] == "-o3"
            if group["steps"] == 2:
                assert group["why_not_one"] == "a transfer between chips divides it"


def test_a_pef_of_o0_needs_no_new_reader(tmp_path):
    """The feature bit of fused steps is set where there are any, and nowhere else."""
    entry = next(e for e in ZOO if e.name == "mlp")
    path = capture.save(capture.capture_forward(entry.model(), entry.inputs()), tmp_path / "m.pt2")
    features = [compile_at(path, tmp_path, o).path.read_bytes()[16:24] for o in (0, 3)]
    assert [int.from_bytes(f, "little") for f in features] == [0, 1]
