# Code compiled for an instruction set must stay its own: a weak symbol in it (an inline function, a
# template) could be the copy that the linker keeps for all, and end in an illegal instruction.
import shutil
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build" / "release"
INSTRUCTION_SETS = ("portable", "avx2", "avx512", "avx512bf16")


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_no_weak_symbols(isa):
    objects = sorted((BUILD / "CMakeFiles" / f"sw_kernels_{isa}.dir").rglob("*.isa.cpp.o"))
    if not objects or shutil.which("nm") is None:
        pytest.skip("needs build/release (./dev build) and nm")
    for path in objects:
        listing = subprocess.run(
            ["nm", "--defined-only", "--demangle", path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert listing, f"{path.name} defines nothing"
        weak = [line for line in listing if line.split()[1] in "WwVvu"]  # address, type, name
        assert not weak, f"{path.name} for {isa} shares symbols with other files"
