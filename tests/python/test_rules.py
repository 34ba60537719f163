# Fusion rules: the source's two on captured Llamas (F8), tp_dim in the solver, results at o0, o1.
from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import ZOO, Entry, decoder

import shardwright as sw
from shardwright import ShardwrightError, capture

ROOT = Path(__file__).resolve().parents[2]
LLAMA2 = ROOT / "docs/examples/llama2.yaml"
SOURCE = ROOT / "tests/data/source_rules.yaml"  # the source document's spellings, re-indented


def program(*args) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "-q", *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def llama(layers: int) -> Entry:
    return Entry(f"llama_{layers}", decoder("Llama", 4, 2, num_hidden_layers=layers))


class Autocast(torch.nn.Module):
    """f32 weights, gemms in bf16: a cast before every linear."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model(input_ids=input_ids, use_cache=False).logits


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """(entry, precision) -> its captured file, made once; batch 3"""
    folder = tmp_path_factory.mktemp("captured")

    def file(entry: Entry, precision: str = "f32") -> Path:
        path = folder / f"{entry.name}_{precision}.pt2"
        if path.exists():
            return path
        model, inputs = entry.model(), entry.inputs(batch=3)
        if precision == "bf16":
            model = capture.cast(model, torch.bfloat16)
            inputs = capture.cast_inputs(inputs, torch.bfloat16)
        if precision == "autocast":
            model = Autocast(model)
        return capture.save(capture.capture_forward(model, inputs), path)

    return file


# --- F8 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [LLAMA2, SOURCE], ids=["tp_dim", "source"])
@pytest.mark.parametrize("layers", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["f32", "bf16", "autocast"])
def test_the_source_s_rules_match_every_layer(precision, layers, rules, captured):
    answer = json.loads(
        program("rules", rules, "--against", captured(llama(layers), precision), "--json")
    )
    (graph,) = answer["graphs"]
    qkv, projection = graph["rules"]
    assert (qkv["name"], qkv["matches_before_priorities"], qkv["matches"]) == (
        "llama2_qkv",
        layers,
        layers,
    )
    assert (
        projection["name"],
        projection["matches_before_priorities"],
        projection["matches"],
    ) == ("llama2_self_attn_proj", 2 * layers, layers + 1)
    # Every o_proj, and the last down_proj with the final norm.
    standing = {
        node["module"]
        for match in graph["matches"]
        if match["rule"] == "llama2_self_attn_proj" and match["lost_to"] is None
        for node in match["nodes"]
        if node["operator"] == "linear"
    }
    if precision != "autocast":  # which loses the paths of modules
        assert standing == {f"model.layers.{i}.self_attn.o_proj" for i in range(layers)} | {
            f"model.layers.{layers - 1}.mlp.down_proj"
        }
    lost = [m for m in graph["matches"] if m["lost_to"]]
    assert len(lost) == layers - 1 and {m["lost_to"] for m in lost} == {"llama2_qkv"}


def test_the_source_s_files_differ_in_spelling_alone():
    ours, theirs = LLAMA2.read_text(), SOURCE.read_text()
    assert "tensor parallel_dim" in theirs and "attn_outensor parallelut_cast" in theirs
    back = theirs.replace("tensor parallel_dim", "tp_dim").replace(
        "attn_outensor parallelut", "attn_output"
    )
    assert back == "".join(line + "\n" for line in ours.splitlines() if not line.startswith("#"))


def test_people_read_the_layers_folded(captured):
    text = program("rules", LLAMA2, "--against", captured(llama(2)))
    text = text[text.index("  llama2_qkv (line") :]
    assert text == (
        "  llama2_qkv (line 3): 2 matches\n"
        "    2 x model.layers.*.input_layernorm, model.layers.*.self_attn.q_proj, "
        "model.layers.*.self_attn.k_proj, model.layers.*.self_attn.v_proj: layers 0-1\n"
        "  llama2_self_attn_proj (line 53): 4 matches, 3 after priorities\n"
        "    2 x model.layers.*.self_attn.o_proj, model.layers.*, "
        "model.layers.*.post_attention_layernorm: layers 0-1\n"
        "    1 x model.layers.*.mlp.down_proj, model.layers.*, model.norm: layer 1\n"
        "    lost to llama2_qkv: 1 x model.layers.*.mlp.down_proj, model.layers.*, "
        "model.layers.(*+1).input_layernorm: layer 0\n"
    )


def test_a_rule_without_a_match_says_where_it_failed(captured, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "ffn:\n  pattern:\n    gate: {op_type: linear, child: act}\n"
        "    act: {op_type: silu, child: down}\n    down: {op_type: linear}\n"
    )
    text = program("rules", rules, "--against", captured(llama(2)))
    assert "  ffn (line 1): no match\n" in text
    assert (
        "    the best attempt matched 2 of 3 nodes; down (linear, rules.yaml:5) should read the "
        "result of act = model.layers.0.mlp.act_fn (silu), activations.py:"
    ) in text
    assert ", where it is read by model.layers.0.mlp (mul), modeling_llama.py:" in text


def test_builtin_is_a_file_in_the_same_language(tmp_path):
    text = program("rules", "--builtin")
    copy = tmp_path / "copy.yaml"
    copy.write_text(text)
    assert "nothing wrong" in program("rules", copy)
    assert text == (ROOT / "src/rules/builtin.yaml").read_text()


# How often each built-in rule matches in two layers of each family, and in the head behind them.
FAMILIES = {
    "llama_6_2": "attention 2, rotary_embedding 4, rms_norm 5, qkv 2, gate_up 2, gemm_residual 4, "
    "gemm 1",
    "mistral": "attention 2, rotary_embedding 4, rms_norm 5, qkv 2, gate_up 2, gemm_residual 4, "
    "gemm 1",
    "qwen2": "attention 2, rotary_embedding 4, rms_norm 5, qkv 2, gate_up 2, gemm_residual 4, "
    "gemm 1",
    "qwen3": "attention 2, rotary_embedding 4, rms_norm 9, qkv 2, gate_up 2, gemm_residual 4, "
    "gemm 1",
    "gemma": "attention 2, rotary_embedding 4, rms_norm 5, qkv 2, gate_up 2, gemm_residual 4, "
    "gemm 1",
    "gemma3": "attention 2, rotary_embedding 4, rms_norm 13, qkv 2, gate_up 2, gemm 5",
    "phi3": "attention 2, rotary_embedding 4, rms_norm 5, gate_up_in_one 2, gemm_residual 4, "
    "gemm 3",
    "olmo2": "attention 2, rotary_embedding 4, rms_norm 9, qkv 2, gate_up 2, gemm 5",
    "gpt2": "attention 2, layer_norm 5, gemm_gelu_by_tanh 2, gemm_residual 4, gemm 3",
    "bert": "attention 2, layer_norm 5, qkv 2, gemm_activation 3, gemm_residual 4",
    "gpt_neox": "attention 2, rotary_embedding 4, layer_norm 5, gemm_activation 2, "
    "gemm_residual 2, gemm 5",
    "opt": "attention 2, layer_norm 5, qkv 2, gemm_activation 2, gemm_residual 4, gemm 1",
}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_builtin_rules_cover_the_families(family, precision, captured):
    entry = next(e for e in ZOO if e.name == family)
    path = captured(entry, precision)
    answer = json.loads(program("rules", "--builtin", "--against", path, "--json"))
    counts = {r["name"]: r["matches"] for r in answer["graphs"][0]["rules"] if r["matches"]}
    want = (entry.rsplit(" ", 1) for entry in FAMILIES[family].split(", "))
    assert counts == {name: int(count) for name, count in want}


# --- tp_dim ---------------------------------------------------------------------------------------


def weights_of(pef, plan=0) -> dict[str, dict]:
    """Last part of a weight's module, in layer 0 -> its report."""
    (graph,) = json.loads(program("inspect", pef.path, "--json"))["plans"][plan]["graphs"]
    return {w["name"].split(".")[-2]: w for w in graph["weights"] if ".layers.0." in w["name"]} | {
        "exchanges": graph["exchanges"]
    }


def compiled(path, folder, rules=None, mode="weight", n_chips=2):
    return sw.compile(
        path,
        pef_name="x",
        tensor_parallel=mode,
        n_chips=n_chips,
        inference=True,
        output_folder=folder,
        optimization=1 if rules else 3,
        optimization_rules=rules,
    )


GEMMS = {  # rule -> pattern: the four kinds of gemms of a Llama layer
    "qkv": "    n: {op_type: mul, included: false, children: [q, k, v]}\n"
    "    q: {op_type: linear}\n    k: {op_type: linear}\n    v: {op_type: linear}\n",
    "proj": "    a: {op_type: scaled_dot_product_attention, included: false, child: t}\n"
    "    t: {op_type: transpose, included: false, child: r}\n"
    "    r: {op_type: reshape, included: false, child: o}\n    o: {op_type: linear}\n",
    "ffn0": "    g: {op_type: linear, child: s}\n    s: {op_type: silu, child: m}\n"
    "    u: {op_type: linear, child: m}\n    m: {op_type: mul}\n",
    "ffn1": "    m: {op_type: mul, included: false, child: d}\n    d: {op_type: linear, child: a}\n"
    "    a: {op_type: add}\n",
}
MODULES = {
    "qkv": ["q_proj", "k_proj", "v_proj"],
    "proj": ["o_proj"],
    "ffn0": ["gate_proj", "up_proj"],
    "ffn1": ["down_proj"],
}


def rule_text(splits: dict[str, str]) -> str:
    return "".join(
        f"{name}:\n  heuristic: {{name: SAFE_GEMM, tp_dim: {split}}}\n  pattern:\n{GEMMS[name]}"
        for name, split in splits.items()
    )


ONE_LAYER = Entry("llama_8_4", decoder("Llama", 8, 4, num_hidden_layers=1, intermediate_size=176))


def table_of_splits(path: Path, tmp_path: Path, n_chips: int) -> list[tuple[str, int, int]]:
    """(splits, transfers, bytes received by all chips) of each choice of M and K for the four gemms
    of a layer; each runs and agrees with one chip."""
    inputs = ONE_LAYER.inputs(batch=3)
    one = compiled(path, tmp_path / "one", mode="none", n_chips=1)
    want = sw.load(one).run(inputs)["logits"].numpy()
    rows = []
    for splits in itertools.product("MK", repeat=4):
        named = dict(zip(GEMMS, splits))
        rules = tmp_path / "rules.yaml"
        rules.write_text(rule_text(named))
        lines = {text: i for i, text in enumerate(rules.read_text().splitlines(), 1)}
        pef = compiled(path, tmp_path / "".join(splits), rules, n_chips=n_chips)
        weights = weights_of(pef)
        for name, split in named.items():
            for module in MODULES[name]:
                assert weights[module]["factor"] == split.lower(), (splits, module)
                assert weights[module]["decided_by"] == f"rules.yaml:{lines[name + ':']} {name}"
        got = sw.load(pef).run(inputs)["logits"].numpy()
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want), splits
        moved = sum(e["bytes_moved"] for e in weights["exchanges"])
        rows.append(("".join(splits), len(weights["exchanges"]), moved))
    return rows


def table_text(rows) -> str:
    text = "| QKV | projection | FFN0 | FFN1 | transfers | bytes received |\n" + "|---" * 6 + "|\n"
    for splits, count, moved in sorted(rows, key=lambda row: (row[2], row[0])):
        text += f"| {' | '.join(splits)} | {count} | {moved:,} |\n"
    return text


@pytest.mark.slow
def test_every_choice_of_m_and_k_runs_and_none_moves_less_than_the_solver_s(captured, tmp_path):
    """The solver's own choice is the source's advice, QKV M, projection K, FFN0 M, FFN1 K, and no
    other moves fewer bytes. docs/rules.md shows the table."""
    path = captured(ONE_LAYER)
    rows = table_of_splits(path, tmp_path, 4)
    free = weights_of(compiled(path, tmp_path / "free", n_chips=4))
    for name, split in zip(GEMMS, "mkmk"):
        for module in MODULES[name]:
            assert free[module]["factor"] == split
    least = min(moved for _, _, moved in rows)
    assert sum(e["bytes_moved"] for e in free["exchanges"]) == least
    assert [splits for splits, _, moved in rows if moved == least] == ["MKMK"]
    assert table_text(rows) in (ROOT / "docs/rules.md").read_text()


def test_auto_leaves_the_choice_to_the_solver(captured, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_text({"qkv": "Auto", "proj": "Auto"}))
    pef = compiled(captured(ONE_LAYER), tmp_path, rules)
    weights = weights_of(pef)
    assert (weights["q_proj"]["factor"], weights["o_proj"]["factor"]) == ("m", "k")
    assert weights["q_proj"]["decided_by"] == "mode weight"


def test_a_split_that_can_t_be_had_names_the_rule_and_why(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "score:\n  heuristic: {name: GEMM, tp_dim: M}\n  pattern:\n"
        "    r: {op_type: relu, included: false, child: l}\n    l: {op_type: linear}\n"
    )
    with pytest.raises(ShardwrightError) as error:
        sw.compile(
            model,
            (torch.zeros(2, 8),),
            pef_name="x",
            tensor_parallel="weight",
            n_chips=2,
            inference=True,
            output_folder=tmp_path,
            optimization=1,
            optimization_rules=rules,
        )
    message = re.sub(r"linear\.py:\d+", "linear.py:1", str(error.value))
    assert (message, error.value.code) == (
        "rules.yaml:1 score: 2 (linear), linear.py:1 can't be split by m over 2 chips; possible: k",
        2,
    )


def notes_of(pef) -> list[str]:
    return json.loads(program("inspect", pef.path, "--json"))["plans"][0]["notes"]


def test_batch_mode_ignores_tp_dim_and_says_so_once(captured, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_text({"qkv": "M", "proj": "K", "ffn0": "Auto"}))
    pef = compiled(captured(ONE_LAYER), tmp_path, rules, mode="batch")
    assert [note for note in notes_of(pef) if "tp_dim" in note] == [
        "batch mode splits no weight: it ignores the tp_dim of rules.yaml:1 qkv, rules.yaml:8 proj"
    ]


def test_a_tp_dim_without_a_weight_is_noted(captured, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "act:\n  heuristic: {name: DEFAULT, tp_dim: K}\n  pattern: {a: {op_type: silu}}\n"
    )
    pef = compiled(captured(ONE_LAYER), tmp_path, rules)
    assert (
        "rules.yaml:1 act: its tp_dim has no effect: what it matched holds no linear with a weight"
        in notes_of(pef)
    )


def test_a_rule_that_matches_nothing_is_a_note(captured, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("conv:\n  pattern: {a: {op_type: conv2d}}\n")
    pef = compiled(captured(ONE_LAYER), tmp_path, rules)
    assert (
        "rules.yaml:1 conv matches nothing in graph forward: nothing in the graph can be a "
        "(conv2d, rules.yaml:2)"
    ) in notes_of(pef)


def test_a_fused_qkv_weight_takes_the_rule_s_split(captured, tmp_path):
    """GPT-2's c_attn is one gemm in the graph, three after it was cut: all three obey."""
    entry = next(e for e in ZOO if e.name == "gpt2")
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "c_attn:\n  heuristic: {name: GPT2_QKV, tp_dim: K}\n  pattern:\n"
        "    gemm: {op_type: addmm, child: shape}\n    shape: {op_type: view, child: parts}\n"
        "    parts: {op_type: split}\n"
    )
    pef = compiled(captured(entry), tmp_path, rules)
    (graph,) = json.loads(program("inspect", pef.path, "--json"))["plans"][0]["graphs"]
    parts = [w for w in graph["weights"] if "h.0.attn.c_attn.weight" in w["name"]]
    assert len(parts) == 3
    assert {(w["factor"], w["decided_by"]) for w in parts} == {("k", "rules.yaml:1 c_attn")}


# --- results --------------------------------------------------------------------------------------


def builtin_subset(chosen: random.Random) -> str:
    """Some of the built-in rules, in any order, with any priorities."""
    text = "\n".join(
        line for line in program("rules", "--builtin").splitlines() if not line.startswith("#")
    )
    rules = [rule for rule in text.split("\n\n") if rule.strip()]
    picked = chosen.sample(rules, chosen.randint(1, len(rules)))
    return "\n".join(
        "\n".join(
            f"  priority: {chosen.randint(0, 9)}" if "priority:" in line else line
            for line in rule.strip("\n").splitlines()
        )
        for rule in picked
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["weight", "batch"])
@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_rules_change_no_result(entry, mode, captured, tmp_path):
    seed = random.SystemRandom().randint(0, 10**9)
    subset = tmp_path / "subset.yaml"
    subset.write_text(builtin_subset(random.Random(seed)))
    path, inputs = captured(entry), entry.inputs(batch=3)
    ways = {"o3": {}, "o0": {"optimization": 0}, "o1": {"optimization": 1}}
    for name, rules in (("source", LLAMA2), ("subset", subset)):
        ways[name] = {"optimization": 1, "optimization_rules": rules}
    want = None
    for way, options in ways.items():
        pef = sw.compile(
            path,
            pef_name=way,
            tensor_parallel=mode,
            n_chips=[1, 2, 3],
            inference=True,
            output_folder=tmp_path,
            **options,
        )
        for n in (1, 2, 3):
            got = sw.load(pef, n_chips=n).run(inputs)[entry.output].numpy().astype(np.float64)
            want = got if want is None else want
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert error <= 1e-5, f"{way}, {n} chips, seed {seed}\n{subset.read_text()}"


# --- docs/rules.md --------------------------------------------------------------------------------


def blocks_of_docs(language: str) -> list[str]:
    text = (ROOT / "docs/rules.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_examples_of_the_docs_are_right(captured, tmp_path):
    blocks = blocks_of_docs("yaml")
    assert len(blocks) >= 3
    rules = tmp_path / "rules.yaml"
    rules.write_text("\n".join(blocks))
    answer = json.loads(program("rules", rules, "--against", captured(llama(2)), "--json"))
    assert answer["notes"] == []
    for rule in answer["graphs"][0]["rules"]:
        assert rule["matches_before_priorities"] > 0, rule


def test_the_mistakes_of_the_docs_read_so(tmp_path):
    (text,) = blocks_of_docs("mistakes")
    rules, _, message = text.partition("\n\n")
    (tmp_path / "rules.yaml").write_text(rules + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "rules", "rules.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (2, message)


# --- mistakes -------------------------------------------------------------------------------------


def fails(*args) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "-q", *map(str, args)], capture_output=True, text=True
    )
    return done.returncode, done.stderr.strip()


def test_mistakes_on_the_command_line(captured, tmp_path):
    model = captured(llama(2))
    assert fails("compile", model, "--inference", "--optimization-rules", LLAMA2) == (
        2,
        f"error: --optimization-rules {LLAMA2}: rules are for -o1, not -o3; give -o1, or leave the "
        "file out",
    )
    assert fails("compile", model, "--inference", "-o0", "--optimization-rules", LLAMA2) == (
        2,
        f"error: --optimization-rules {LLAMA2}: rules are for -o1, not -o0; give -o1, or leave the "
        "file out",
    )
    assert fails("rules") == (
        2,
        "error: FILE is missing: give a rule file, or --builtin for our own, which you can copy",
    )
    assert fails("rules", LLAMA2, "--builtin") == (
        2,
        "error: --builtin prints our own rule file: leave FILE out, or save what it prints and "
        "give that",
    )
    rules = tmp_path / "rules.yaml"
    rules.write_text("a:\n  pattern: {x: {op_type: linaer}}\n")
    message = f"error: {rules}:2:26: unknown op_type 'linaer'; the nearest are linear, index, alias"
    assert fails("rules", rules) == (2, message)
    assert fails("compile", model, "--inference", "-o1", "--optimization-rules", rules) == (
        2,
        message,
    )
