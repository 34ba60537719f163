# Completion scripts, in real shells, against what --help lists.
from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from program import COMMANDS, long_options, run

SHARED = {"--help", "--version", "--json", "--quiet", "--log-level", "--color", "--config"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    (folder / "models").mkdir()
    (folder / "my model.pt2").touch()
    for shell in ("bash", "zsh", "fish"):
        (folder / f"script.{shell}").write_text(run("completion", shell).stdout)
    return folder


def shell(name, script, folder) -> list[str]:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [name, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def bash(folder, *words) -> list[str]:
    """What bash offers for the last word."""
    script = f"""
        source script.bash
        compopt() {{ :; }}  # works while readline completes only
        COMP_WORDS=(shardwright {shlex.join(words)}); COMP_CWORD={len(words)}
        _shardwright
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p shardwright >&2"""
    return [word for word in shell("bash", script, folder) if word]


def fish(folder, *words) -> list[str]:
    line = shlex.join(("shardwright", *words))
    lines = shell("fish", f"source script.fish; complete -C {shlex.quote(line)}", folder)
    return [line.split("\t")[0] for line in lines]


@pytest.mark.parametrize("complete", [bash, fish])
def test_commands_and_options_are_the_parser_s(scripts, complete):

    assert set(COMMANDS) <= set(complete(scripts, ""))
    assert complete(scripts, "mea") == ["measure-performance"]
    for command in COMMANDS:
        offered = set(complete(scripts, command, "--"))
        assert offered == SHARED | set(long_options(command)), command
    assert complete(scripts, "compile", "--pref") == []
    assert complete(scripts, "compile", "--prec") == ["--precision"]


@pytest.mark.parametrize("complete", [bash, fish])
def test_values(scripts, complete):
    assert sorted(complete(scripts, "compile", "--precision", "")) == ["bf16", "f32", "int8"]
    assert complete(scripts, "compile", "--tensor-parallel", "w") == ["weight"]
    assert complete(scripts, "run", "x.pef", "--log-level", "d") == ["debug"]
    assert sorted(complete(scripts, "completion", "")) == ["bash", "fish", "zsh"]
    assert complete(scripts, "compile", "--n-chips", "") == []


def test_bash_paths(scripts):
    assert bash(scripts, "compile", "my") == ["my model.pt2"]
    assert bash(scripts, "compile", "--dump", "m") == ["models"]
    assert sorted(bash(scripts, "run", "--pef", "m")) == ["models", "my model.pt2"]


def test_bash_takes_option_and_value_for_three_words(scripts):
    assert bash(scripts, "compile", "--precision", "=", "b") == ["bf16"]
    assert sorted(bash(scripts, "compile", "--precision", "=")) == ["bf16", "f32", "int8"]


def test_zsh_reads_its_script(scripts):
    lines = shell(
        "zsh",
        "autoload -Uz compinit; compinit -D -u; source script.zsh; print $_comps[shardwright]; "
        "whence -w _shardwright",
        scripts,
    )
    assert lines == ["_shardwright", "_shardwright: function"]
