# The model-script door: what the command line gets from a model.py, with a stand-in for the module.
import argparse
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import zoo

from shardwright import ShardwrightError, app, session


def mlp(args):
    return zoo.Mlp().eval(), zoo.features(args.batch_size)


@pytest.fixture
def core(monkeypatch):
    """Stands in for shardwright._core; remembers what `cli` was given."""
    calls = types.SimpleNamespace()

    def cli(argv, provider):
        calls.argv = argv
        calls.path = provider(json.dumps({"batch_size": 3, "hidden": 1, "precision": "f32"}))
        calls.program = torch.export.load(calls.path)
        return 3

    module = types.SimpleNamespace(cli=cli)
    monkeypatch.setitem(sys.modules, "shardwright._core", module)
    monkeypatch.setattr("shardwright._core", module, raising=False)
    return calls


def test_own_options_are_taken_out_and_reach_the_model(core, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["/somewhere/model.py"])

    def model(args):
        seen.append(args)
        return mlp(args)

    with pytest.raises(SystemExit) as raised:
        app.main(
            model,
            add_arguments=lambda parser: parser.add_argument("--hidden", type=int),
            argv=["compile", "--hidden", "7", "-b", "3", "--inference"],
        )
    assert raised.value.code == 3
    assert core.argv == ["model.py", "compile", "-b", "3", "--inference"]
    assert core.program.graph_signature.user_outputs == ("logits",)
    assert (seen[0].hidden, seen[0].batch_size, seen[0].precision) == (7, 3, "f32")


def test_model_that_returns_no_inputs(tmp_path):
    provide = app.provider(lambda args: zoo.Mlp(), argparse.Namespace(), tmp_path)
    with pytest.raises(ShardwrightError, match="must return an nn.Module and its example inputs"):
        provide("{}")


@pytest.mark.parametrize("precision, dtype", [("f32", np.float32), ("bf16", np.uint16)])
def test_reference_is_pytorch_s_result(tmp_path, precision, dtype):
    torch.manual_seed(0)
    module = torch.nn.Linear(24, 5)
    inputs = zoo.features(3)["x"]
    provide = app.provider(lambda args: (module, (inputs,)), argparse.Namespace(), tmp_path)
    provide(json.dumps({"want": "reference", "precision": precision}))
    arrays = {p.stem: np.load(p) for p in (tmp_path / "reference").rglob("*.npy")}
    assert {name: (a.shape, a.dtype) for name, a in arrays.items()} == {
        "input": ((3, 24), dtype),
        "output_0": ((3, 5), dtype),
    }
    result = session.from_core((arrays["output_0"], precision), as_torch=True)
    with torch.no_grad():
        expected = module(inputs.to(module.weight.dtype))
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("as_torch", [False, True])
def test_arrays_go_to_the_core_and_back(as_torch):
    values = [
        torch.ones(2, 3, dtype=torch.bfloat16).T,
        torch.tensor(True),
        torch.arange(6).reshape(2, 3).T,
        torch.zeros(2, 0, dtype=torch.float16),
    ]
    for value in values:
        array, dtype = session.to_core("x", value)
        assert array.flags.c_contiguous and array.shape == tuple(value.shape)
        back = session.from_core((array, dtype), as_torch)
        if not as_torch:
            back = torch.as_tensor(back).to(value.dtype)
        torch.testing.assert_close(back, value, rtol=0, atol=0)


def test_dtype_that_no_chip_knows():
    with pytest.raises(
        ShardwrightError, match="input 'x' has dtype complex64; these work: float32"
    ):
        session.to_core("x", np.zeros(2, np.complex64))


SCRIPT = """
import shardwright.app
from zoo import Mlp, features

shardwright.app.main(lambda args: (Mlp(), features(args.batch_size)))
"""


def test_arguments_that_are_no_utf8_are_refused_without_a_traceback(tmp_path):
    (tmp_path / "model.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "model.py", "compile", b"--a\xffb"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.path.dirname(__file__)},
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "--a\ufffdb" in done.stderr
