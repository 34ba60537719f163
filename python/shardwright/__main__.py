# python -m shardwright: the shardwright command, from the Python package.
import os
import sys


def main() -> int:
    from . import _core

    os.environ.setdefault(
        "SHARDWRIGHT_PYTHON", sys.executable
    )  # what captures a Hugging Face folder
    # What is no UTF-8 stands in sys.argv as lone surrogates, which are no text.
    args = [os.fsencode(arg).decode(errors="replace") for arg in sys.argv[1:]]
    return _core.cli(["shardwright", *args], None)


if __name__ == "__main__":
    sys.exit(main())
