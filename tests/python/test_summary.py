# The closing line of `./dev test`: what must turn it red.
import subprocess
import sys
from pathlib import Path

import pytest

SUMMARY = Path(__file__).parents[1] / "summary.py"
GOOD = '<testsuites><testcase classname="A" name="b" status="run"/></testsuites>'
BAD = '<testsuites><testcase classname="A" name="b"><failure/></testcase></testsuites>'


@pytest.mark.parametrize(
    "xml, status, code, line",
    [
        (GOOD, "0", 0, "1 passed, 0 failed, 0 skipped"),
        (GOOD, None, 0, "1 passed, 0 failed, 0 skipped"),
        (GOOD, "1", 1, "1 passed, 1 failed, 0 skipped"),  # a leak, found when the program ended
        (BAD, "1", 1, "0 passed, 1 failed, 0 skipped"),
        ("", "139", 1, "0 passed, 1 failed, 0 skipped"),  # a crash
    ],
)
def test_closing_line(tmp_path, xml, status, code, line):
    (tmp_path / "debug-test_x.xml").write_text(xml)
    if status:
        (tmp_path / "debug-test_x.status").write_text(status)
    done = subprocess.run(
        [sys.executable, str(SUMMARY), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout
    assert done.stdout.splitlines()[-1] == line
