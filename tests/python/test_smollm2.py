# SmolLM2-135M, real weights: the same logits as PyTorch and as one chip on 1 to 8 chips.
from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import divergence, relative

import shardwright as sw
from shardwright import capture, huggingface

pytestmark = pytest.mark.slow

CHIPS = list(range(1, 9))
BATCH, TOKENS = 9, 16  # 9 rows divide by none of 2, 4..8
TEXT = "The capital of France is Paris, which lies on the river Seine, and its people are called"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """Folder of the captured files, input_ids (BATCH, TOKENS), PyTorch's f32 logits."""
    folder = tmp_path_factory.mktemp("smollm2")
    source = huggingface.smollm2()
    model = huggingface.load(source)
    text = huggingface.tokenizer(source)(TEXT, return_tensors="pt").input_ids[0]
    # Rows that differ, all of them text: the sentence turned by a token each time.
    ids = torch.stack([text.roll(row)[:TOKENS] for row in range(BATCH)])
    assert ids.shape == (BATCH, TOKENS)
    with torch.no_grad():
        want = model(ids).logits.numpy()
    for precision in ("f32", "bf16"):
        program = capture.capture_forward(
            capture.cast(model, capture.dtype_of(precision)), {"input_ids": ids}
        )
        capture.save(program, folder / f"{precision}.pt2")
    return folder, ids, want


def logits(smollm2, mode: str, precision: str, n_chips: list[int], weights: str | None = None):
    """(n, logits) from one PEF with a plan for each n; the PEF goes when done."""
    folder, ids, _ = smollm2
    pef = sw.compile(
        folder / f"{precision}.pt2",
        pef_name=f"{mode}_{precision}",
        tensor_parallel=mode,
        n_chips=n_chips,
        inference=True,
        precision=weights,
        output_folder=folder,
    )
    try:
        for n in n_chips:
            yield n, sw.load(pef, n_chips=n).run({"input_ids": ids})["logits"].float().numpy()
    finally:
        pef.path.unlink()


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_f32_equals_pytorch_and_one_chip_at_every_n(smollm2, mode):
    one = want = smollm2[2]
    for n, got in logits(smollm2, mode, "f32", CHIPS):
        one = got if n == 1 else one
        assert relative(got, want) <= 1e-5, f"{n} chips against PyTorch"
        assert relative(got, one) <= 1e-5, f"{n} chips against one"


@pytest.mark.parametrize("mode", ["weight", "batch"])
def test_bf16_gives_the_distribution_of_the_next_token(smollm2, mode):
    want = smollm2[2]
    assert divergence(np.zeros_like(want), want) > 1, "any answer would do"
    for n, got in logits(smollm2, mode, "bf16", [1, 2]):
        assert divergence(got, want) < 1e-2, f"{n} chips"


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_int8_weights_give_the_distribution_of_the_next_token(smollm2, precision):
    for n, got in logits(smollm2, "weight", precision, [1, 2], weights="int8"):
        assert divergence(got, smollm2[2]) < 2e-2, f"{n} chips"
