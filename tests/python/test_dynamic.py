# Symbolic sizes of a .pt2 file: --dim, its default, and what the file's range constraints refuse.
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.export import Dim

import shardwright as sw


def export(module, args, dynamic_shapes, path):
    program = torch.export.export(module, args, dynamic_shapes=dynamic_shapes, strict=False)
    torch.export.save(program.run_decompositions({}), path)
    return path


class Mixer(torch.nn.Module):
    """Sizes made of sizes: products, quotients, remainders, maxima, differences; as arguments of
    views, slices, padding and arange, and as a number beside a tensor."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 6)

    def forward(self, x):
        batch, time, _ = x.shape
        y = self.linear(x).view(batch, time * 2, 3)
        half = y[:, : time // 2].transpose(1, 2).reshape(batch * 3, -1)
        padded = torch.nn.functional.pad(x, (0, 0, 0, time % 4))
        position = torch.arange(time).float() / time + max(time, 5)
        return y, half.mean(), padded[:, 1:], position, x[:, time - 1]


@pytest.fixture(scope="module")
def mixer(tmp_path_factory):
    torch.manual_seed(0)
    module = Mixer()
    path = tmp_path_factory.mktemp("dynamic") / "mixer.pt2"
    sizes = {"x": {0: Dim.DYNAMIC(max=64), 1: Dim.DYNAMIC(min=4)}}
    return module, export(module, (torch.randn(4, 6, 8),), sizes, path)


class Pairs(torch.nn.Module):
    def forward(self, x, y):
        return x.view(-1, 2).sum(1) + y


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    d = Dim("d", min=2, max=16)
    path = tmp_path_factory.mktemp("dynamic") / "pairs.pt2"
    return export(Pairs(), (torch.randn(12), torch.randn(6)), {"x": {0: 2 * d}, "y": {0: d}}, path)


@pytest.mark.parametrize(
    "dims, shape",
    [(None, (4, 6, 8)), (["x.1=11"], (4, 11, 8)), (["x.0=2", "x.1=4"], (2, 4, 8))],
)
@pytest.mark.parametrize("n_chips", [1, 3])
def test_sizes_that_are_chosen(mixer, dims, shape, n_chips, tmp_path):
    module, path = mixer
    pef = sw.compile(
        path,
        dim=dims,
        inference=True,
        tensor_parallel="weight",
        n_chips=n_chips,
        output_folder=tmp_path,
    )
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module(x)
    results = sw.load(pef).run({"x": x}).values()
    for result, want in zip(results, expected, strict=True):
        torch.testing.assert_close(result, want)


def test_one_choice_serves_all_sizes_of_its_symbol(pairs, tmp_path):
    pef = sw.compile(pairs, dim=["x.0=20"], inference=True, output_folder=tmp_path)
    x, y = torch.randn(20), torch.randn(10)
    (result,) = sw.load(pef).run({"x": x, "y": y}).values()
    torch.testing.assert_close(result, Pairs()(x, y))


def refusal(path, *dims) -> str:
    with pytest.raises(sw.ShardwrightError) as raised:
        sw.compile(path, dim=list(dims), inference=True, dry_run=True)
    assert raised.value.code == 2
    return str(raised.value)


def test_impossible_sizes(mixer, pairs):
    _, path = mixer
    names = sorted(sw_symbols(path))
    message = refusal(path, "x.1=3")
    assert message in [
        f"--dim x.1=3: mixer.pt2 allows 4 or more (range constraint {s} >= 4, x.1 is {s})"
        for s in names
    ]
    for name in ("x.2", "y.0", "x"):
        assert refusal(path, f"{name}=8") == (
            f"--dim {name}=8: mixer.pt2 does not leave this size open; it leaves open "
            "x.0 (2 to 64, default 4), x.1 (4 or more, default 6)"
        )
    (symbol,) = sw_symbols(pairs)
    for size in (7, 34):
        assert refusal(pairs, f"x.0={size}") == (
            f"--dim x.0={size}: pairs.pt2 allows 4 to 32 in steps of 2 "
            f"(range constraint 2 <= {symbol} <= 16, x.0 is 2*{symbol})"
        )
    assert refusal(pairs, "x.0=8", "y.0=5") == (
        "--dim y.0=5: contradicts --dim x.0=8, which makes y.0 4 (the file ties both sizes "
        "together); leave one of them out"
    )
    for text in ("x.0", "=3", "x.0=", "x.0=many", "x.0=-2"):
        assert refusal(path, text) == (f"--dim {text}: give INPUT.DIM=SIZE, as in input_ids.1=128")


def sw_symbols(path) -> set[str]:
    """The symbols that the file has range constraints of, as PyTorch reads it."""
    return {str(s) for s in torch.export.load(path).range_constraints if s.is_symbol}


def test_file_without_open_sizes(tmp_path):
    path = export(Pairs(), (torch.randn(12), torch.randn(6)), None, tmp_path / "fixed.pt2")
    assert refusal(path, "x.0=8") == (
        "--dim x.0=8: all sizes of fixed.pt2 are fixed; export it with dynamic_shapes"
    )


def test_python_values_are_fixed_at_export(tmp_path):
    class Scaled(torch.nn.Module):
        def forward(self, x, scale, negative, kind, nothing, count):
            return (-x if negative else x) * scale + count, kind, x.shape[0]

    path = export(
        Scaled(),
        (torch.ones(3), 2.5, True, "text", None, 4),
        {"x": None, "scale": None, "negative": None, "kind": None, "nothing": None}
        | {"count": Dim.DYNAMIC},
        tmp_path / "scaled.pt2",
    )
    for dims, value in (None, 1.5), (["count=7"], 4.5):
        pef = sw.compile(path, dim=dims, inference=True, output_folder=tmp_path)
        (result,) = sw.load(pef).run({"x": np.ones(3, np.float32)}).values()
        np.testing.assert_array_equal(result, np.full(3, value, np.float32))


class Branch(torch.nn.Module):
    def forward(self, x, y):
        torch._check(x.shape[0] + y.shape[0] != 9)
        if (2 * x.shape[0] - y.shape[0]) % 5 == 2 and max(x.shape[0], 3) // 2 < 20:
            return x.sum() + y.sum()
        return x.sum()


def test_sizes_for_which_the_program_is_another(tmp_path):
    """The export keeps one branch; for sizes that would take the other it is refused."""
    path = export(
        Branch(),
        (torch.ones(4), torch.ones(6)),
        {"x": {0: Dim.DYNAMIC}, "y": {0: Dim.DYNAMIC}},
        tmp_path / "branch.pt2",
    )
    pef = sw.compile(path, dim=["x.0=6", "y.0=5"], inference=True, output_folder=tmp_path)
    (result,) = sw.load(pef).run({"x": torch.ones(6), "y": torch.ones(5)}).values()
    assert result == Branch()(torch.ones(6), torch.ones(5)) == 11
    for dims, (x, y) in (["x.0=6"], (6, 6)), (["x.0=51", "y.0=5"], (51, 5)):
        assert Branch()(torch.ones(x), torch.ones(y)) == x
        message = refusal(path, *dims)
        assert message.startswith("--dim: branch.pt2 was exported for sizes with "), message
        assert message.endswith("; choose others, or export again"), message
        assert f"x.0 = {x}" in message.partition("which doesn't hold for ")[2], message
    assert "!= 9, which doesn't hold for " in refusal(path, "y.0=5")


def test_sizes_that_depend_on_data(tmp_path):
    class Counted(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(x.sum().item())

    path = export(Counted(), (torch.ones(4, dtype=torch.int64),), None, tmp_path / "counted.pt2")
    with pytest.raises(sw.ShardwrightError, match="the size u0 depends on data") as raised:
        sw.compile(path, inference=True, dry_run=True)
    assert raised.value.code == 3
