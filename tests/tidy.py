# Style as a test: format, include order, lengths, orphan files, first lines. Prints every finding;
# `./dev tidy`.
import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUNCTION_LINES, FILE_LINES, COLUMNS = 70, 500, 100
FOLDERS = ("src", "tests", "bench", "fuzz", "python", "examples")

# Files that may break a rule, and why. This table may only shrink.
EXEMPT: dict[str, str] = {}


def files(*suffixes: str) -> list[Path]:
    return sorted(
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file() and not path.is_symlink()
    )


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- each check yields findings: "file:line: what is wrong" -------------------------------------


def check_format() -> Iterator[str]:
    sources = [name_of(path) for path in files(".h", ".cpp")]
    result = subprocess.run(
        ["clang-format-14", "--dry-run", *sources], cwd=ROOT, capture_output=True, text=True
    )
    badly = {line.split(":")[0] for line in result.stderr.splitlines() if "warning:" in line}
    yield from (f"{name}: not formatted: clang-format-14 -i {name}" for name in sorted(badly))


def check_ruff() -> Iterator[str]:
    for command in (["format", "--check"], ["check", "--output-format=concise"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        yield from (
            f"{line.removeprefix('Would reformat: ')}: ruff {command[0]}"
            for line in result.stdout.splitlines()
        )


def allowed_includes() -> dict[str, set[str]]:
    """folder of src/ -> the folders that it may include: the table of CMakeLists.txt, closed."""
    text = (ROOT / "CMakeLists.txt").read_text()
    direct = {
        name: set(deps.split())
        for name, deps in re.findall(
            r"^sw_folder\((\w+)(?: DEPS ((?:[a-z]+ ?)+?))?(?: LINK [^)]*)?\)", text, re.MULTILINE
        )
    }
    direct["kernels"] = {"tensor", "base"}
    direct["pef"] = {"ops"}
    direct["rules"] = {"ir"}
    closed: dict[str, set[str]] = {}

    def close(name: str) -> set[str]:
        if name not in closed:
            closed[name] = {name}.union(*(close(dep) for dep in direct.get(name, ())))
        return closed[name]

    return {name: close(name) for name in direct}


def check_include_order() -> Iterator[str]:
    allowed = allowed_includes()
    for path in files(".h", ".cpp"):
        parts = path.relative_to(ROOT).parts
        if parts[0] != "src":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = re.match(r'#include "(\w+)/', line)
            if include and include[1] in allowed and include[1] not in allowed.get(parts[1], set()):
                yield f"{name_of(path)}:{number}: {parts[1]} may not include {include[1]}"


def check_lines() -> Iterator[str]:
    for path in files(".h", ".cpp", ".py", ".pyi"):
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES:
            yield f"{name_of(path)}: {len(lines)} lines, at most {FILE_LINES}"
        first = next((line for line in lines if not line.startswith("#!")), "")
        if lines and not first.startswith(("//", "# ")):
            yield f"{name_of(path)}:1: the first line must say what the file is for"
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS and not line.startswith("  %"):  # a node of a graph is one line
                yield f"{name_of(path)}:{number}: {len(line)} columns, at most {COLUMNS}"
            if re.search(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b", line):
                yield f"{name_of(path)}:{number}: unfinished"


def check_function_lengths() -> Iterator[str]:
    for path in files(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef)
                and node.end_lineno - node.lineno >= FUNCTION_LINES
            ):
                yield too_long(path, node.lineno, node.end_lineno)
    for path in files(".h", ".cpp"):
        for first, last in cpp_functions(path.read_text()):
            if last - first >= FUNCTION_LINES:
                yield too_long(path, first, last)


def too_long(path: Path, first: int, last: int) -> str:
    return (
        f"{name_of(path)}:{first}: a function of {last - first + 1} lines, at most {FUNCTION_LINES}"
    )


NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^#[^\n]*',
    re.DOTALL | re.MULTILINE,
)
FUNCTION_HEAD = re.compile(
    r"\)\s*(?:const|noexcept|override|final|mutable|->[^{};]*|:[^{};]*|\s)*$", re.DOTALL
)


def cpp_functions(text: str) -> Iterator[tuple[int, int]]:
    """(first line, last line) of each outermost function body: a brace after something with
    (...)."""
    code = NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    head_start, stack = 0, []
    for at in re.finditer(r"[;{}]", code):
        head = code[head_start : at.start()]
        if at[0] == "{":
            inside = any(function for function, _ in stack)
            start = head_start + len(head) - len(head.lstrip())
            stack.append((not inside and bool(FUNCTION_HEAD.search(head)), start))
        elif at[0] == "}" and stack:
            function, start = stack.pop()
            if function:
                yield code.count("\n", 0, start) + 1, code.count("\n", 0, at.start()) + 1
        head_start = at.end()


def check_orphans() -> Iterator[str]:
    text = "\n".join(path.read_text() for path in files(".h", ".cpp"))
    included = set(re.findall(r'#include "([^"]+)"', text))
    for path in files(".h"):
        relative = path.relative_to(ROOT)
        if not included & {"/".join(relative.parts[i:]) for i in range(1, len(relative.parts))}:
            yield f"{name_of(path)}: no file includes it"


CHECKS = (
    check_format,
    check_ruff,
    check_include_order,
    check_lines,
    check_function_lengths,
    check_orphans,
)


def clang_tidy(build: str) -> int:
    sources = [name_of(path) for path in files(".cpp") if name_of(path).startswith("src/")]
    return subprocess.run(
        ["run-clang-tidy-14", "-quiet", "-p", build, *sources], cwd=ROOT
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="check the style of every source file")
    parser.add_argument("--clang-tidy", metavar="BUILD", help="run clang-tidy as well")
    args = parser.parse_args()
    findings = [
        finding for check in CHECKS for finding in check() if finding.split(":")[0] not in EXEMPT
    ]
    print("\n".join(findings + [f"tidy: {len(findings)} findings"]))
    status = clang_tidy(args.clang_tidy) if args.clang_tidy else 0
    return 1 if findings or status else 0


if __name__ == "__main__":
    sys.exit(main())
