# One test a user's mistake, with the whole message and the exit code.
from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from program import error as run
from program import run as finished
from zoo import ZOO

import shardwright as sw
from shardwright import capture

MLP = next(e for e in ZOO if e.name == "mlp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("errors")


@pytest.fixture(scope="module")
def model(folder):
    return capture.save(capture.capture_forward(MLP.model(), MLP.inputs()), folder / "mlp.pt2")


@pytest.fixture(scope="module")
def pef(model, folder):
    return sw.compile(
        model,
        pef_name="mlp",
        tensor_parallel="weight",
        n_chips=[1, 2],
        inference=True,
        output_folder=folder / "out",
    ).path


def test_mode_without_value(model):
    assert run("compile", model, "--inference", "--tensor-parallel") == (
        2,
        "error: --tensor-parallel needs a value: batch (splits the data), "
        "weight (splits the weights), auto or none",
    )


def test_unknown_mode(model):
    assert run("compile", model, "--inference", "--tensor-parallel", "pipeline") == (
        2,
        "error: --tensor-parallel pipeline: unknown mode; give batch (splits the data), "
        "weight (splits the weights), auto or none",
    )


@pytest.mark.parametrize("n", ["0", "-3"])
def test_no_chips(model, n):
    assert run("compile", model, "--inference", f"--n-chips={n}") == (
        2,
        f"error: --n-chips {n}: give a whole number, 1 or more",
    )


def test_batch_smaller_than_chips(model):
    assert run("compile", model, "--inference", "--n-chips", "3") == (
        2,
        "error: batch 2 is smaller than 3 chips: give -b 3 or more, or --n-chips 2",
    )


def test_training_without_a_loss(model):
    assert run("compile", model) == (
        2,
        "error: the model has no output called 'loss' to minimise (it has: logits): return a loss, "
        "give labels to a Hugging Face model, or add --inference to compile the forward pass",
    )


def test_an_optimizer_for_inference(model):
    assert run("compile", model, "--inference", "--optimizer", "sgd") == (
        2,
        "error: --optimizer trains, and --inference does not: leave one out",
    )


def test_an_option_of_another_optimizer(model):
    assert run("compile", model, "--momentum", "0.9") == (
        2,
        "error: --momentum is for --optimizer sgd: leave one out",
    )


class Odd(torch.nn.Module):
    def forward(self, x):
        y = torch.special.bessel_j0(x).sum()
        y = y + torch.special.bessel_j0(x).mean()
        return {"y": torch.linalg.det(x) + y}


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Odd()])

    def forward(self, x):
        return self.layers[0](x)


def test_all_unsupported_operators_at_once(folder):
    path = capture.save(
        capture.capture_forward(Outer(), {"x": torch.randn(3, 3)}), folder / "odd.pt2"
    )
    line = Odd.forward.__code__.co_firstlineno
    assert run("compile", path, "--inference") == (
        3,
        "error: the model uses 2 operators that Shardwright does not know:\n"
        "  torch.ops.aten.linalg_det.default (1 time, first in layers.0, "
        f"test_errors.py:{line + 3})\n"
        "  torch.ops.aten.special_bessel_j0.default (2 times, first in layers.0, "
        f"test_errors.py:{line + 1})\n"
        "Express them by supported operators (docs/ops.md lists these) and capture again.",
    )


def test_raw_form(folder):
    path = folder / "raw.pt2"
    torch.export.save(torch.export.export(MLP.model(), (), MLP.inputs()), path)
    assert run("compile", path, "--inference") == (
        3,
        "error: raw.pt2: holds the raw form of torch.export; capture with shardwright, or call "
        "ep.run_decompositions({}) before torch.export.save",
    )


def rewritten(archive, path, change) -> str:
    """The archive with each record as `change(name, bytes)` gives it; None leaves it out."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            record = change(name, old.read(name))
            if record is not None:
                new.writestr(name, record)
    return path


def test_pickled_weights(model, folder):
    def pickled(name, record):
        if not name.endswith("model_weights_config.json"):
            return record
        config = json.loads(record)
        config["config"]["up.weight"]["use_pickle"] = True
        return json.dumps(config)

    assert run("compile", rewritten(model, folder / "pickled.pt2", pickled), "--inference") == (
        3,
        "error: pickled.pt2: tensor 'up.weight' is pickled; it is a tensor subclass or a custom "
        "object: replace it by a plain tensor and export again",
    )


def test_weights_pickled_by_an_older_torch(model, folder):
    path = folder / "older.pt2"
    with zipfile.ZipFile(model) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name.endswith("model_weights_config.json"):
                new.writestr(name.replace("model_weights_config.json", "model.pt"), b"pickle")
            else:
                new.writestr(name, old.read(name))
    assert run("compile", path, "--inference") == (
        3,
        "error: older.pt2: its weights are pickled (written by torch <= 2.8); export again with "
        "torch >= 2.9",
    )


def test_no_such_model():
    assert run("compile", "nothing.pt2", "--inference") == (
        2,
        "error: nothing.pt2: there is no such file or folder; give a .pt2 file or a Hugging Face "
        "folder (config.json + weights)",
    )


def test_pef_of_another_version(pef, folder):
    data = bytearray(pef.read_bytes())
    data[8] = 9  # major
    other = folder / "other.pef"
    other.write_bytes(data)
    assert run("run", other) == (
        5,
        f"error: {other} has PEF version 9.2, written by shardwright 0.1.0; this program reads "
        "version 1.1 and later 1.x. Compile the model again with this one",
    )


def test_truncated_pef(pef, folder):
    short, data = folder / "short.pef", pef.read_bytes()
    short.write_bytes(data[:-100])
    assert run("run", short) == (
        5,
        f"error: {short} is truncated: it has {len(data) - 100} bytes, its header states "
        f"{len(data)}; copy it again",
    )
    short.write_bytes(data[:50])
    assert run("run", short) == (
        5,
        f"error: {short} is truncated: it has 50 bytes, a PEF has at least 4096; copy it again",
    )


def test_not_a_pef(model):
    assert run("run", model) == (
        5,
        f"error: {model} is not a PEF (it does not start as one); `shardwright compile` writes "
        "them",
    )


def test_wrong_input_name(pef, folder):
    np.save(folder / "x.npy", np.zeros((2, 24), np.float32))
    assert run("run", pef, "--input", f"y={folder}/x.npy") == (
        2,
        f"error: --input y={folder}/x.npy: graph 'forward' has no input 'y'; inputs are "
        "x (f32[2, 24])",
    )


def test_wrong_input_shape_and_dtype(pef, folder):
    for array, what in (
        (np.zeros((3, 24), np.float32), "f32[3, 24]"),
        (np.zeros((2, 24)), "f64[2, 24]"),
    ):
        np.save(folder / "bad.npy", array)
        assert run("run", pef, "--input", f"x={folder}/bad.npy") == (
            2,
            f"error: --input x={folder}/bad.npy: the file holds {what}, but input 'x' of this "
            "PEF is f32[2, 24]",
        )


def mistake(session, inputs) -> str:
    with pytest.raises(sw.ShardwrightError) as raised:
        session.run(inputs)
    return str(raised.value)


def test_the_same_mistakes_from_python(pef):
    session = sw.load(pef)
    right = np.zeros((2, 24), np.float32)
    assert mistake(session, {"y": right}) == ("graph 'forward' has no input 'y'; its inputs are x")
    assert mistake(session, {"x": right[:1]}) == (
        "input 'x' of graph 'forward' is f32[1, 24], but this PEF was compiled for f32[2, 24]: "
        "compile again with this shape, or pad or cut the array"
    )
    assert mistake(session, {"x": right.astype(np.float64)}) == (
        "input 'x' of graph 'forward' is f64[2, 24], but this PEF was compiled for f32[2, 24]: "
        "convert the array to that dtype"
    )
    assert mistake(session, {}) == "input 'x' (f32[2, 24]) of graph 'forward' is missing"


def test_option_that_contradicts_the_pef(pef):
    for option, value, has in (("tensor-parallel", "batch", "weight"), ("n-chips", "5", "1,2")):
        assert run("run", pef, f"--{option}", value) == (
            2,
            f"error: --{option} {value} contradicts the PEF, which was compiled with --{option} "
            f"{has}; leave the option out (run reads it from the PEF), or compile again",
        )
    assert run("run", pef, "--tensor-parallel", "weight", "--n-chips", "2") == (0, "")


def bytes_text(count: int) -> str:
    if count < 10_000:
        return f"{count} B"
    return f"{count * 1e-3:.1f} kB" if count < 10_000_000 else f"{count * 1e-6:.1f} MB"


class Wide(torch.nn.Module):
    """Weights of 66 kB, activations of 1 kB a sample."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(32, 256), torch.nn.Linear(256, 32)

    def forward(self, x):
        return {"y": self.down(torch.relu(self.up(x)))}


@pytest.mark.parametrize("batch, limit, mode", [(1600, 300_000, "batch"), (2, 40_000, "weight")])
def test_not_enough_memory(folder, batch, limit, mode):
    """Need, limit, and remedies that work: a batch, and the smallest number of chips."""
    path = capture.save(
        capture.capture_forward(Wide(), {"x": torch.zeros(batch, 32)}), folder / "wide.pt2"
    )
    options = ("compile", path, "--inference", "--dry-run")
    (plan,) = json.loads(finished(*options, "--json").stdout)["plans"]
    weights, arena = (plan["chips"][0][key] for key in ("weights_bytes", "arena_bytes"))
    n = next(n for n in range(2, 65) if fits(options, mode, n, limit))
    fitting = (limit - weights) // (arena // batch)
    code, text = run(*options, "--chip-memory", limit)
    assert (code, text) == (
        4,
        f"error: the model does not fit: a chip needs {bytes_text(weights + arena)} (weights "
        f"{bytes_text(weights)}, activations and transfers {bytes_text(arena)} at batch {batch}), "
        f"but the limit is {bytes_text(limit)}; "
        + (f"a batch of {fitting} fits (-b {fitting}), or " if fitting >= 1 else "")
        + f"{n} chips in {mode} mode hold it (--tensor-parallel {mode} --n-chips {n})",
    )
    if fitting >= 1:
        smaller = capture.save(
            capture.capture_forward(Wide(), {"x": torch.zeros(fitting, 32)}), folder / "small.pt2"
        )
        assert run("compile", smaller, *options[2:], "--chip-memory", limit) == (0, "")


def fits(options, mode, n, limit) -> bool:
    options = (*options, "--tensor-parallel", mode, "--n-chips", n, "--chip-memory", limit)
    return run(*options)[0] == 0


def test_full_disk_leaves_nothing_half_written(model):
    """A disk of 16 kB, smaller than the PEF."""
    script = """
set -e
d=$(mktemp -d); mount -t tmpfs -o size=16k tmpfs $d
mkdir -p $d/out/mlp; echo "free $(($(stat -fc %a $d) * $(stat -fc %S $d))) in $d"
set +e; "$1" -m shardwright -q compile "$2" --inference --output-folder $d/out; echo "code $?"
find $d -type f | sed 's/^/left: /'; umount $d"""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", sys.executable, str(model)],
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr and "code" not in done.stdout:
        pytest.skip("needs a mount namespace (root): " + done.stderr.strip())
    free, folder = re.search(r"free (\d+) in (\S+)", done.stdout).groups()
    assert "left:" not in done.stdout, done
    assert "code 2\n" in done.stdout, done
    path = f"{folder}/out/mlp/mlp.pef"
    assert re.sub(r"\d+ bytes", "N bytes", done.stderr) == (
        f"error: no space for {path}: N bytes are needed, {free} are free on its disk (No space "
        "left on device). Free some, or write to a folder on another disk\n"
    )
