# Adds up JUnit files: the last line is "N passed, N failed, N skipped"; the exit status is 1 unless
# all is well.
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def counts(path: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped); a file that its program never finished is one failure."""
    if path.stat().st_size == 0:
        print(f"FAILED {path.stem}: the program ended before its tests did")
        return 0, 1, 0
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            print(f"FAILED {path.stem}: {case.get('classname')}.{case.get('name')}")
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            skipped += 1
        else:
            passed += case.get("status") != "notrun"  # notrun: GoogleTest's filter left it out
    status = path.with_suffix(".status")
    if not failed and status.exists() and status.read_text().strip() != "0":
        # What a sanitizer finds when the program ends (a leak) is in no test case.
        print(f"FAILED {path.stem}: all its tests passed, but it ended with {status.read_text()}")
        failed += 1
    return passed, failed, skipped


def main() -> int:
    files = sorted(Path(sys.argv[1]).glob("*.xml"))
    passed, failed, skipped = map(sum, zip((0, 0, 0), *map(counts, files)))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
