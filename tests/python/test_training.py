# Training equals PyTorch: loss, every gradient, and parameters after steps, at every n and mode.
from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from compare import relative
from zoo import ZOO

import shardwright as sw
from shardwright import capture

MODELS = {entry.name: entry for entry in ZOO}
BATCH, SEQ, STEPS, LR = 6, 12, 10, 1e-2
PLANS = [("weight", [1, 2, 3, 4, 5, 8]), ("batch", [2, 3, 5])]
NAMES = ["llama_9_3", "llama_6_2", "qwen3", "gemma", "mistral", "gpt2"]
OTHERS = ["llama_5_1", "qwen2", "gemma3", "phi3", "olmo2", "opt", "gpt_neox"]  # at fewer n


class Subject:
    """A tiny model with its loss, the batch, and what PyTorch gives."""

    def __init__(self, entry, folder):
        self.folder = folder
        self.model = entry.model()
        self.inputs = entry.inputs(batch=BATCH, seq=SEQ)
        labels = self.inputs["input_ids"].clone()
        labels[1, 5:] = -100  # ignored: the mean is over the others of all chips
        self.inputs["labels"] = labels
        first: dict[int, str] = {}  # tied weights are one parameter of several names
        self.first_name = {
            name: first.setdefault(p.data_ptr(), name)
            for name, p in self.model.named_parameters(remove_duplicate=False)
        }
        self.path = folder / "model.pt2"
        capture.save(capture.capture_forward(self.model, self.inputs), self.path)
        self.f32 = self.torch_gradients(self.model)
        self.f64 = self.torch_gradients(copy.deepcopy(self.model).double())

    def torch_gradients(self, model) -> dict[str, np.ndarray]:
        model = copy.deepcopy(model)
        loss = model(**self.inputs).loss
        loss.backward()
        named = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        return {"loss": loss.detach().numpy(), **named}

    def torch_steps(self, dtype: torch.dtype) -> tuple[list[float], dict[str, np.ndarray]]:
        model, losses = copy.deepcopy(self.model).to(dtype), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, eps=1e-3, weight_decay=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = model(**self.inputs).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, {name: p.detach().numpy() for name, p in model.named_parameters()}

    def compile(self, mode, n_chips, **options):
        return sw.compile(
            self.path, tensor_parallel=mode, n_chips=n_chips, output_folder=self.folder, **options
        )


@pytest.fixture(scope="module", params=NAMES)
def subject(request, tmp_path_factory):
    if request.param not in MODELS:
        pytest.fail(f"the zoo has no {request.param}: {', '.join(MODELS)}")
    return Subject(MODELS[request.param], tmp_path_factory.mktemp(request.param))


PART = re.compile(r"(?P<name>.*?)(?P<turned>\.T)?(?P<cuts>(\[\d+:\d+:\d+\])*)")


def whole(parts: dict[str, np.ndarray], subject) -> dict[str, np.ndarray]:
    """Gradients of parts ("NAME[dim:begin:end]", "NAME.T") put together to those of parameters."""
    result = {name: np.full(value.shape, np.nan) for name, value in subject.f64.items()}
    for part, value in parts.items():
        match = PART.fullmatch(part)
        view = result[subject.first_name.get(match["name"], match["name"])]
        where = [slice(None)] * view.ndim
        for dim, begin, end in re.findall(r"(\d+):(\d+):(\d+)", match["cuts"]):
            where[int(dim)] = slice(int(begin), int(end))
        view[tuple(where)] = value.T if match["turned"] else value
    return result


def check_gradients(subject, mode, n_chips):
    pef = subject.compile(mode, n_chips, optimizer="none", pef_name=f"gradients_{mode}")
    for n in n_chips:
        got = sw.load(pef, n_chips=n).gradients(
            {name: value.numpy() for name, value in subject.inputs.items()}
        )
        assert relative(got["loss"], subject.f64["loss"]) < 1e-6
        got = whole(got, subject)
        for name, want in subject.f64.items():
            limit = max(1e-5, 4 * relative(subject.f32[name], want))
            scale = np.linalg.norm(want)
            if scale < 1e-7:  # 0 but for rounding: of a bias that softmax takes out again
                assert np.linalg.norm(got[name]) < 1e-6, name
                continue
            assert relative(got[name], want) < limit, f"{name}, {n} chips"


@pytest.mark.parametrize("mode, n_chips", PLANS)
def test_gradients_equal_pytorchs(subject, mode, n_chips):
    check_gradients(subject, mode, n_chips)


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_other_models(name, tmp_path):
    subject = Subject(MODELS[name], tmp_path)
    check_gradients(subject, "weight", [1, 3])
    check_gradients(subject, "batch", [2])


def check_steps(subject, mode, n_chips):
    losses, parameters = subject.torch_steps(torch.float64)
    _, in_f32 = subject.torch_steps(torch.float32)
    pef = subject.compile(
        mode, n_chips, optimizer="adamw", eps=1e-3, weight_decay=0.1, pef_name=f"train_{mode}"
    )
    assert losses[-1] < losses[0]
    for n in n_chips:
        session = sw.load(pef, n_chips=n)
        got = [session.train_step(subject.inputs, LR) for _ in range(STEPS)]
        assert relative(np.array(got), np.array(losses)) < 1e-5, f"{n} chips"
        trained = {
            subject.first_name[name]: value
            for name, value in session.parameters().items()
            if name in subject.first_name
        }
        assert trained.keys() == parameters.keys()
        for name, want in parameters.items():
            limit = max(1e-5, 4 * relative(in_f32[name], want))
            assert relative(trained[name], want) < limit, f"{name}, {n} chips"


@pytest.mark.parametrize("mode, n_chips", [("weight", [1, 2, 3, 4]), ("batch", [2, 3])])
def test_steps_of_adamw_equal_pytorchs(subject, mode, n_chips):
    check_steps(subject, mode, n_chips)


def test_steps_of_a_weight_whose_heads_interleave(tmp_path):
    """GPT-NeoX keeps q, k and v of each head side by side: parts of them would interleave."""
    check_steps(Subject(MODELS["gpt_neox"], tmp_path), "weight", [1, 3])


def test_frozen_parameters_stay(tmp_path):
    entry = MODELS[NAMES[0]]
    model, inputs = entry.model(), entry.inputs(batch=2, seq=SEQ)
    inputs["labels"] = inputs["input_ids"].clone()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "mlp" in name
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    pef = sw.compile(model, inputs, optimizer="sgd", momentum=0.9, output_folder=tmp_path)
    session = sw.load(pef)
    first = session.train_step(inputs, 0.1)
    for _ in range(4):
        last = session.train_step(inputs, 0.1)
    assert last < first
    after = session.parameters()
    for name, value in before.items():
        if name in after:
            assert np.array_equal(after[name], value) == ("mlp" not in name), name


def test_a_pef_that_does_not_train(tmp_path):
    pef = sw.compile("tests/data/mlp.pt2", inference=True, output_folder=tmp_path)
    session = sw.load(pef)
    with pytest.raises(sw.ShardwrightError, match="this PEF does not train: compile the model"):
        session.train_step({})
    with pytest.raises(sw.ShardwrightError, match='compile the model with optimizer="none"'):
        session.gradients({})
