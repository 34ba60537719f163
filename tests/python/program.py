# Runs the shardwright program as a user would.
from __future__ import annotations

import os
import re
import subprocess
import sys

COMMANDS = ["compile", "run", "test", "measure-performance", "inspect", "explain", "verify"]
COMMANDS += ["generate", "rules", "serve", "completion"]


def run(*args, cwd=None, env=None) -> subprocess.CompletedProcess:
    """The finished program, with nothing but `env` of what shells set for it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SHARDWRIGHT_")}
    return subprocess.run(
        [sys.executable, "-m", "shardwright", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | {"NO_COLOR": "1"} | (env or {}),
    )


def error(*args, **options) -> tuple[int, str]:
    """Exit code and standard error, without progress."""
    done = run("-q", *args, **options)
    return done.returncode, done.stderr.strip()


def long_options(command: str) -> list[str]:
    """As `--help` of the command lists them, without --help."""
    text = run(command, "--help").stdout
    return sorted(set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE)) - {"--help"})
