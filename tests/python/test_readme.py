# What the README and the examples tell people to type, typed.
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Indented blocks, by their first line.
BLOCKS = {
    block.splitlines()[0].strip(): re.sub(r"^    ", "", block, flags=re.MULTILINE)
    for block in re.findall(
        r"(?:^    .*\n(?:^\n(?=    ))?)+", (ROOT / "README.md").read_text(), re.M
    )
}


def block(first: str) -> str:
    return next(text for line, text in BLOCKS.items() if line.startswith(first))


@pytest.fixture
def shell(tmp_path):
    """Runs a script in a folder of its own; `python` and `shardwright` are those under test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in ("python", ""), ("shardwright", " -m shardwright"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable}{command} "$@"\n')
        (programs / name).chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("SHARDWRIGHT_")}
    env["PATH"] = f"{programs}:{env['PATH']}"

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = tmp_path
    return run


@pytest.mark.slow
def test_model_script(shell):
    script, commands = block("# model.py").split("\n\npython model.py")
    (shell.folder / "model.py").write_text(script)
    out = shell("python model.py" + commands)
    assert out.count("mode none") >= 1 and "mode weight" in out
    assert "PyTorch" in out and "DIFFERS" not in out


@pytest.mark.slow
def test_python_then_shell_then_settings(shell):
    (shell.folder / "use.py").write_text(block("import numpy"))
    shell("python use.py")
    out = shell(block("shardwright compile"))
    assert "DIFFERS" not in out and "every byte" in out
    assert (shell.folder / "results" / "output_0.npy").exists()
    (shell.folder / "settings.yaml").write_text(block("# settings.yaml"))
    out = shell(
        "shardwright compile model.pt2 --config settings.yaml --pef-name s\n"
        "shardwright run out/s/s.pef --config settings.yaml"
    )
    assert "4 chips" in out


@pytest.mark.slow
@pytest.mark.parametrize("example", ["mlp", "llama"])
def test_examples(shell, example):
    """The commands at the head of each, continued lines and all."""
    (shell.folder / "examples").symlink_to(ROOT / "examples")
    head = (ROOT / "examples" / f"{example}.py").read_text().replace("\\\n#", "")
    commands = re.findall(r"^#   (python .*)$", head, re.M)
    assert len(commands) == 2
    out = shell("\n".join(c for c in commands if not c.endswith("...")))
    assert "mode " in out
