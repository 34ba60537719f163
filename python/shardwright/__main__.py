# python -m shardwright: the shardwright command, from the Python package.
import os
import sys


def main() -> int:
    from . import _core

    os.environ.setdefault(
        "SHARDWRIGHT_PYTHON", sys.executable
    )  # what captures a Hugging Face folder
    return _core.cli(["shardwright", *sys.argv[1:]], None)


if __name__ == "__main__":
    sys.exit(main())
