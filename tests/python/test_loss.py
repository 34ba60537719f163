# Cross entropy: a Llama with labels gives PyTorch's loss at every n, in both modes.
from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import relative
from test_fusion import graphs_of
from zoo import ZOO

import shardwright as sw
from shardwright import capture

CHIPS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The captured program, its inputs, and what PyTorch gives. The rows of the batch have unlike
    numbers of labels that count, one none: the mean of the chips' means is not the mean."""
    entry = next(e for e in ZOO if e.name == "llama_6_2")
    inputs = entry.inputs(batch=5)
    labels = inputs["input_ids"].clone()
    for row, ignored in enumerate((0, 3, 9, 15, 16)):
        labels[row, :ignored] = -100
    inputs = dict(inputs, labels=labels)
    model = entry.model()
    path = tmp_path_factory.mktemp("loss") / "llama.pt2"
    capture.save(capture.capture_forward(model, inputs), path)
    with torch.no_grad():
        return path, inputs, model(**inputs)


def compiled(path, folder, **options) -> sw.Pef:
    return sw.compile(path, inference=True, output_folder=folder, **options)


@pytest.mark.parametrize("optimization", [0, 1, 3])
@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_equals_pytorch_at_every_n(llama, mode, optimization, tmp_path):
    path, inputs, want = llama
    options = dict(tensor_parallel=mode, n_chips=CHIPS, optimization=optimization)
    pef = compiled(path, tmp_path, **options)
    for n in CHIPS:
        got = sw.load(pef, n_chips=n).run(inputs)
        assert got["loss"].shape == ()
        assert abs(got["loss"] - want.loss) <= 1e-5 * want.loss, f"{n} chips"
        assert relative(got["logits"].numpy(), want.logits.numpy()) <= 1e-5, f"{n} chips"


def test_weight_mode_splits_the_vocabulary(llama, tmp_path):
    """No chip has all classes: only numbers of rows pass between the chips for the loss."""
    path, inputs, want = llama
    pef = compiled(path, tmp_path, tensor_parallel="weight", n_chips=[3])
    (graph,) = graphs_of(pef)
    (head,) = [w for w in graph["weights"] if w["name"] == "lm_head.weight"]
    assert head["state"].startswith("split(0"), head
    behind = [e for e in graph["exchanges"] if e["shape"][-1:] != [48]]
    assert sorted(e["kind"] for e in behind) == ["all_reduce"] * 3, behind
    assert max(np.prod(e["shape"]) for e in behind) <= inputs["labels"].numel()


def test_one_chip_does_all_rows_in_one_step(llama, tmp_path):
    (graph,) = graphs_of(compiled(llama[0], tmp_path))
    (group,) = [g for g in graph["groups"] if "gather" in g["members"]]
    assert (group["steps"], group["why_not_one"]) == (1, "")
    assert {"amax", "exp", "sum", "log", "gather", "where"} <= set(group["members"]), group


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(37,), (5, 37), (3, 37, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forms(dtype, shape, reduction, tmp_path):
    class Loss(torch.nn.Module):
        def forward(self, x, target):
            loss = torch.nn.functional.cross_entropy
            return loss(x, target, ignore_index=3, reduction=reduction)

    random = torch.Generator().manual_seed(5)
    x = (torch.randn(shape, generator=random) * 9).to(dtype)
    rest = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = torch.randint(0, 37, rest, generator=random)
    if rest:
        target[0] = 3
    inputs = {"x": x, "target": target}
    pef = sw.compile(
        Loss(),
        inputs,
        tensor_parallel="batch",
        n_chips=[1, 2],
        inference=True,
        output_folder=tmp_path,
    )
    want = Loss()(x.double(), target).numpy()
    tolerance = 1e-5 if dtype == torch.float32 else 1.6e-2
    for n in (1, 2):
        got = sw.load(pef, n_chips=n).run(inputs)["output_0"].float().numpy()
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-5)
