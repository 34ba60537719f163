# --precision int8: every model of the zoo on 1, 2 and 3 chips, against the interpreter on the same
# weights; against PyTorch's f32 by the distribution.
from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from compare import divergence, relative
from test_models import SPREAD
from zoo import ZOO

import shardwright as sw
from shardwright import capture

CHIPS = [1, 2, 3]


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_equals_one_chip_and_the_interpreter(entry, tmp_path):
    model, inputs = entry.model(), entry.inputs()
    with torch.no_grad():
        results = model(**inputs)
    results = results if isinstance(results, dict) else vars(results)
    want = results[entry.output].numpy()
    pef = sw.compile(
        capture.save(capture.capture_forward(model, inputs), tmp_path / "model.pt2"),
        pef_name="int8",
        tensor_parallel="weight",
        n_chips=CHIPS,
        inference=True,
        precision="int8",
        output_folder=tmp_path,
    )
    names = [name for name in sw.load(pef).parameters() if name.endswith(".int8")]
    assert names, "no weight became int8"
    one = None
    for n in CHIPS:
        got = sw.load(pef, n_chips=n).run(inputs)[entry.output].float().numpy()
        one = got if one is None else one
        assert relative(got, one) <= 1e-5, f"{n} chips against one"
        # A weight is off by up to 1/254 of the largest of its row.
        assert relative(got, want) <= 5e-2, f"{n} chips against PyTorch"
        if "input_ids" in inputs and entry.output == "logits":
            scale = SPREAD / want.std()
            assert divergence(scale * got, scale * want) < 2e-2, f"{n} chips"
            assert divergence(0 * got, scale * want) > 1, "any answer would do"
    subprocess.run([sys.executable, "-m", "shardwright", "test", str(pef.path)], check=True)
