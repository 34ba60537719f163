# python -m shardwright: the shardwright command, from the Python package.
import os
import sys
from collections.abc import Sequence


def as_text(argv: Sequence[str]) -> list[str]:
    """What is no UTF-8 stands in sys.argv as lone surrogates, which are no text: U+FFFD instead."""
    return [os.fsencode(arg).decode(errors="replace") for arg in argv]


def main() -> int:
    from . import _core

    os.environ.setdefault(
        "SHARDWRIGHT_PYTHON", sys.executable
    )  # what captures a Hugging Face folder
    return _core.cli(["shardwright", *as_text(sys.argv[1:])], None)


if __name__ == "__main__":
    sys.exit(main())
