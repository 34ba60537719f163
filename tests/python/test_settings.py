# Options from --config and from the environment: default, file, environment, command line.
from __future__ import annotations

import json
from pathlib import Path

import pytest
from program import COMMANDS, error, long_options, run

import shardwright as sw

MODEL = Path(__file__).parent.parent / "data" / "mlp.pt2"


@pytest.fixture(scope="module")
def pef(tmp_path_factory):
    return sw.compile(
        MODEL,
        tensor_parallel="weight",
        n_chips=[1, 2],
        inference=True,
        output_folder=tmp_path_factory.mktemp("settings"),
    ).path


def config(folder, text) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def plans(*args, **options) -> list[tuple[int, str]]:
    done = run("compile", MODEL, "--dry-run", "--json", *args, **options)
    assert done.returncode == 0, done
    return [(plan["n_chips"], plan["mode"]) for plan in json.loads(done.stdout)["plans"]]


def test_order_is_default_file_environment_command_line(tmp_path):
    file = config(tmp_path, "inference: true\ntensor_parallel: weight\nn-chips: [2, 3]\n")
    assert plans("--inference") == [(1, "none")]
    assert plans("--config", file) == [(2, "weight"), (3, "weight")]
    env = {"SHARDWRIGHT_TENSOR_PARALLEL": "auto"}
    assert plans("--config", file, env=env) == [(2, "auto"), (3, "auto")]
    env["SHARDWRIGHT_N_CHIPS"] = "1,2"
    assert plans("--config", file, env=env) == [(1, "none"), (2, "auto")]
    args = ("--config", file, "--tensor-parallel", "batch", "--n-chips", "2")
    assert plans(*args, env=env) == [(2, "batch")]
    env |= {"SHARDWRIGHT_CONFIG": str(file), "SHARDWRIGHT_MODEL": "nowhere.pt2"}
    assert plans(env=env) == [(1, "none"), (2, "auto")]
    assert plans(env={"SHARDWRIGHT_INFERENCE": "1", "SHARDWRIGHT_N_CHIPS": ""}) == [(1, "none")]


def test_a_command_s_own_section_wins(tmp_path, pef):
    file = config(
        tmp_path,
        f"pef: {pef}\nn-chips: 2\ncompile:\n  model: {MODEL}\n  n-chips: [1, 2]\n"
        "  inference: yes\nrun:\n  n-chips: 1\nverify:\n",
    )
    assert plans("--config", file) == [(1, "none"), (2, "batch")]
    done = run("run", "--json", "--config", file)
    assert json.loads(done.stdout)["n_chips"] == 1
    done = run("test", "--json", "--no-interpreter", "--config", file)
    assert json.loads(done.stdout)["n_chips"] == [2]


def test_test_compares_every_plan(pef):
    done = run("test", "--json", pef)
    answer = json.loads(done.stdout)
    assert answer["n_chips"] == [1, 2]
    assert {c["n_chips"] for c in answer["comparisons"] if c["against"] == "1 chip"} == {2}


def test_every_option_of_every_command(tmp_path):
    """Keys are checked in their order, so the error at the last line says that all were known."""
    for command in COMMANDS:
        keys = [option.removeprefix("--") for option in long_options(command)]
        assert keys or command == "completion"
        lines = [f"{command}:", *(f"  {key}: 1" for key in keys), "  no-such-thing-at-all: 1"]
        code, text = error(command, "--config", config(tmp_path, "\n".join(lines)))
        line = len(lines)
        assert code == 2
        assert f"line {line}: unknown option 'no-such-thing-at-all' of {command}; " in text


@pytest.mark.parametrize(
    "text, message",
    [
        ("n-chip: 2", "line 1: unknown option 'n-chip'; the nearest known one is 'n-chips'"),
        (
            "json: false\n\nrun:\n  inferense: 1",
            "line 4: unknown option 'inferense' of run; the nearest known one is 'inference'",
        ),
        ("n-chips: 1\nn_chips: 2", "line 2: 'n-chips' stands in line 1 already"),
        ("seq:", "line 1: 'seq' has no value"),
        ("n-chips: []", "line 1: 'n-chips' has no value"),
        ("n-chips: [[1]]", "line 1: 'n-chips' is a list of lists"),
        (
            "train:\n  seq: 1",
            "line 1: 'train' has options below it, but is no command; commands are compile, run, "
            "test, measure-performance, inspect, explain, verify, generate, rules, serve, "
            "completion",
        ),
        ("run: 3", "line 1: below 'run' stand its options, as in `n-chips: 2`"),
        ("- seq", "line 1: expected options, as in `n-chips: 2`"),
        ("config: other.yaml", "line 1: a file can't name another one"),
        ("seq: [1, 2]", "line 1: --seq takes one value, not 1, 2"),
        ("json: true\nseq: many", "line 2: --seq many: give a whole number, 1 or more"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    file = config(tmp_path, text)
    assert error("compile", MODEL, "--config", file) == (2, f"error: {file}, {message}")


def test_file_that_is_no_yaml(tmp_path):
    file = config(tmp_path, "a: [1\nb: 2\n")
    code, text = error("compile", MODEL, "--config", file)
    assert code == 2 and text.startswith(f"error: {file}, line 2: "), text


def test_file_that_is_not_there(tmp_path):
    path = tmp_path / "none.yaml"
    assert error("compile", MODEL, "--config", path) == (
        2,
        f"error: --config {path}: there is no such file, or it can't be read",
    )
    assert error("compile", MODEL, env={"SHARDWRIGHT_CONFIG": str(tmp_path)}) == (
        2,
        f"error: --config {tmp_path}: is a folder; give a YAML file "
        "(--config comes from SHARDWRIGHT_CONFIG)",
    )


CONTRADICTION = (
    "error: --tensor-parallel batch contradicts the PEF, which was compiled with "
    "--tensor-parallel weight; leave the option out (run reads it from the PEF), or compile again"
)


def test_contradiction_of_the_pef_from_each_door(tmp_path, pef):
    assert error("run", pef, "--tensor-parallel", "batch") == (2, CONTRADICTION)
    assert error("run", pef, env={"SHARDWRIGHT_TENSOR_PARALLEL": "batch"}) == (
        2,
        CONTRADICTION + " (--tensor-parallel comes from SHARDWRIGHT_TENSOR_PARALLEL)",
    )
    file = config(tmp_path, "tensor-parallel: batch")
    assert error("run", pef, "--config", file) == (
        2,
        CONTRADICTION + f" (--tensor-parallel comes from {file}, line 1)",
    )
    for option, value, has in (
        ("n-chips", "3", "1,2"),
        ("batch-size", "9", "2"),
        ("precision", "bf16", "f32"),
    ):
        assert error("run", pef, f"--{option}", value) == (
            2,
            f"error: --{option} {value} contradicts the PEF, which was compiled with --{option} "
            f"{has}; leave the option out (run reads it from the PEF), or compile again",
        )
    args = ("--tensor-parallel", "weight", "-b", "2", "--precision", "f32", "--n-chips", "2")
    assert run("run", pef, *args).returncode == 0


def test_from_python_too(monkeypatch):
    monkeypatch.setenv("SHARDWRIGHT_N_CHIPS", "0")
    with pytest.raises(sw.ShardwrightError) as raised:
        sw.compile(MODEL, inference=True, dry_run=True)
    assert str(raised.value) == "SHARDWRIGHT_N_CHIPS: --n-chips 0: give a whole number, 1 or more"
    sw.compile(MODEL, inference=True, dry_run=True, n_chips=2)


def test_old_spellings(pef):
    for spelling in ("-tp 3", "-tp=3", "--tensor-parallel-size 3"):
        assert plans("--inference", *spelling.split()) == [(3, "weight")]
    assert run("run", "-p", pef, "-tp", "2").returncode == 0
    assert error("run", "-p", pef, "-tp", "5")[1].startswith("error: --n-chips 5 contradicts")
    for option in ("--n-chips=2", "--tensor-parallel=batch"):
        assert error("compile", MODEL, "-tp", "3", option) == (
            2,
            "error: -tp 3 says --tensor-parallel weight --n-chips 3 already; leave "
            f"{option.partition('=')[0]} out",
        )
    assert error("compile", MODEL, "-tp") == (2, "error: -tp needs a value, as in -tp 4")


def test_log_level_and_color(tmp_path):
    args = ("compile", MODEL, "--inference", "--output-folder", tmp_path)
    assert run(*args, "--log-level", "warning").stderr == run("-q", *args).stderr == ""
    assert run(*args, "--json").stderr.startswith("read ...\n")
    debug = run(*args, "--log-level", "debug", env={"SHARDWRIGHT_SEQ": ""}).stderr
    assert "debug: canonical took " in debug and "comes from" not in debug
    debug = run(*args, "--log-level=debug", env={"SHARDWRIGHT_N_CHIPS": "2"}).stderr
    assert "debug: --n-chips comes from SHARDWRIGHT_N_CHIPS\n" in debug
    for options, red in ((), False), (["--color=always"], True), (["--color=never"], False):
        assert ("\x1b[1;31merror: " in error("run", *options)[1]) == red


def test_a_dry_run_tells_what_compiling_would(tmp_path):
    args = ("compile", MODEL, "--inference", "--n-chips", "1,2", "--output-folder", tmp_path)
    dry, real = (json.loads(run(*args, "--json", *more).stdout) for more in (["--dry-run"], []))
    assert (dry["pef"], dry["size_bytes"]) == ("", 0)
    assert dry["plans"] == real["plans"] and dry["graphs"] == real["graphs"] == ["forward"]
    of = "a model of"
    dry, real = (run(*args, *more).stdout.splitlines() for more in (["--dry-run"], []))
    assert [line for line in dry if of in line] == [line for line in real if of in line] != []
