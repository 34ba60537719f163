# python -m shardwright.server OPTIONS: what `shardwright serve` becomes; OPTIONS is JSON.
from __future__ import annotations

import json
import sys

from ..errors import ShardwrightError


def main(argv: list[str]) -> int:
    if len(argv) != 1 or not argv[0].startswith("{"):
        print("error: start the server with: shardwright serve PEF", file=sys.stderr)
        return 2
    options = json.loads(argv[0])
    try:
        try:
            from .process import serve
        except ImportError as error:
            raise ShardwrightError(
                f"serve needs more packages ({error}): pip install 'shardwright[serve]'"
            ) from error
        serve(options)
    except ShardwrightError as error:
        if options.get("json"):
            answer = {"code": error.code, "message": str(error)}
            print(json.dumps({"schema_version": 1, "error": answer}))
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
