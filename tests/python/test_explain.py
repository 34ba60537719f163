# explain: why each operator is split as it is, what is transferred for it; and its page in a
# browser.
from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from zoo import ZOO, Entry, decoder

import shardwright as sw

# The first layer has no residual of another to fuse into its norm; all others are alike.
LLAMA = Entry("llama_4_layers", decoder("Llama", 6, 2, num_hidden_layers=4))
CHIPS = [2, 3, 4]
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def run(*args) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the program, without progress lines."""
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "-q", *map(str, args)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr.strip()


def explain(pef, *args) -> dict:
    code, out, errors = run("explain", pef, "--json", *args)
    assert code == 0, errors
    return json.loads(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explain")


def compiled(entry: Entry, folder, mode="weight", **options):
    """The PEF of a model."""
    return sw.compile(
        entry.model(),
        entry.inputs(),
        tensor_parallel=mode,
        inference=True,
        output_folder=folder,
        **options,
    ).path


@pytest.fixture(scope="module")
def pef(folder):
    return compiled(LLAMA, folder, pef_name="llama", n_chips=[1, *CHIPS])


def blocks(explanation: dict) -> list[dict]:
    (graph,) = explanation["graphs"]
    return graph["blocks"]


def nodes(explanation: dict) -> list[dict]:
    return [node for block in blocks(explanation) for node in block["nodes"]]


@pytest.mark.parametrize("n", [2])
def test_who_decided_and_what_else_it_could_have_been(pef, n):
    explanation = explain(pef, "--n-chips", n)
    want = {"q_proj": "M", "k_proj": "M", "v_proj": "M", "o_proj": "K"}
    want |= {"gate_proj": "M", "up_proj": "M", "down_proj": "K", "lm_head": "M"}
    seen = set()
    for node in nodes(explanation):
        name = node["path"].split(".")[-1]
        if node["operator"] != "linear" or name not in want:
            continue
        seen.add(name)
        assert node["split"]["kind"] == want[name], node
        assert node["split"]["words"].startswith(want[name] + " ("), node
        assert node["decided_by"] == "mode weight", node
        assert node["reason"] == f"clean dimension {want[name].lower()}", node
        others = [a["split"]["kind"] for a in node["alternatives"]]
        assert 2 <= len(others) <= 3 and {"M": "K", "K": "M"}[want[name]] in others, node
        assert set(others) <= {"M", "K", "whole", "tokens"}, node
        more = [a["more_seconds"] for a in node["alternatives"]]
        assert more == sorted(more), node
        assert sum(node["rows_per_chip"]) == node["inputs"][1]["shape"][want[name] == "K"]
    assert seen == set(want)
    (attention,) = {
        (node["split"]["kind"], node["decided_by"])
        for node in nodes(explanation)
        if node["operator"] == "attention"
    }
    assert attention == ("heads", "mode weight")


def test_a_rule_that_decided_is_named_with_its_line(folder):
    rules = folder / "rules.yaml"
    rules.write_text(
        "# o_proj and all others\n"
        "every_gemm:\n  heuristic: {name: GEMM, tp_dim: K}\n  pattern: {a: {op_type: linear}}\n"
    )
    path = compiled(
        LLAMA, folder, pef_name="ruled", n_chips=2, optimization=1, optimization_rules=rules
    )
    linears = [node for node in nodes(explain(path)) if node["operator"] == "linear"]
    assert len(linears) == 8
    for node in linears:
        assert node["decided_by"] == "rules.yaml:2 every_gemm", node
        assert (node["reason"], node["split"]["kind"]) == ("splits k", "K"), node
        assert "M" in [a["split"]["kind"] for a in node["alternatives"]], node


def test_a_fall_back_says_why(folder):
    few = next(e for e in ZOO if e.name == "llama_5_1")
    path = compiled(few, folder, pef_name="few", n_chips=8)
    said = {
        node["path"].split(".")[-1]: node["fell_back"]
        for node in nodes(explain(path))
        if node.get("alternatives")
    }
    assert said["q_proj"] == "m divides into only 5 pieces for 8 chips"
    assert said["o_proj"] == "k divides into only 5 pieces for 8 chips"
    assert said["up_proj"] == ""


def test_layers_that_are_alike_are_shown_once(pef):
    titles = [block["title"] for block in blocks(explain(pef))]
    assert titles == ["before the layers", "layer 0", "layers 1-3", "after the layers"]
    (layer,) = blocks(explain(pef, "--layer", "1"))
    assert (layer["title"], layer["path"]) == ("layer 1", "model.layers.1")


@pytest.mark.parametrize("n", CHIPS)
def test_stated_bytes_are_those_that_were_counted(pef, n):
    code, _, errors = run("measure-performance", pef, "--n-chips", n, "--repeats", "2")
    assert code == 0, errors
    measured = json.loads(pef.with_name(pef.name + ".measured.json").read_text())
    (run_of_n,) = [m for m in measured["measurements"] if m["n_chips"] == n]
    explanation = explain(pef, "--n-chips", n)
    stated = 0
    for layer in [0, 1]:
        for exchange in blocks(explain(pef, "--n-chips", n, "--layer", layer))[0]["exchanges"]:
            counted = [chip[exchange["step"]]["received_bytes"] for chip in run_of_n["chips"]]
            assert exchange["received_bytes"] == counted, exchange
            assert sum(counted) == exchange["bytes_moved"] > 0, exchange
            assert exchange["modelled_seconds"] > 0, exchange
            assert exchange["with_previous"] or exchange["measured"]["seconds"] > 0, exchange
            stated += 1
    assert stated > 0
    (graph,) = explanation["graphs"]
    counted = sum(s["received_bytes"] for chip in run_of_n["chips"] for s in chip)
    assert graph["received_bytes"] == counted
    assert graph["measured"]["seconds"] > 0


@pytest.mark.slow
def test_measurements_of_another_file_are_not_shown(folder):
    path = compiled(LLAMA, folder, pef_name="other", n_chips=2)
    (graph,) = explain(path)["graphs"]
    remedy = f"`shardwright measure-performance {path} --n-chips 2` measures"
    assert graph["measured"] == {"why_not": f"nothing is measured yet: {remedy}"}
    assert run("measure-performance", path, "--repeats", "1")[0] == 0
    (graph,) = explain(path)["graphs"]
    assert graph["measured"]["runs"] == 1
    compiled(LLAMA, folder, "batch", pef_name="other", n_chips=2)
    (graph,) = explain(path)["graphs"]
    assert graph["measured"] == {
        "why_not": f"{path}.measured.json is of another file: {remedy} this one"
    }
    assert graph["exchanges"] == 0


def test_a_session_explains_its_plan(pef):
    with_layer = sw.load(pef, n_chips=3).explain(layer=1)
    assert with_layer == explain(pef, "--n-chips", 3, "--layer", 1)


def test_text_for_people(pef):
    code, text, errors = run("explain", pef)
    assert code == 0, errors
    assert f"{pef}: plan for 2 chips, mode weight" in text
    lines = [x for x in text.splitlines() if x.strip().startswith("self_attn.o_proj")]
    assert len(lines) == 2  # layer 0, and layers 1-3
    for line in lines:
        assert "linear" in line and "K (contracted): 24 + 24" in line, line
        assert "mode weight: clean dimension k" in line and "M (output features)" in line, line
    assert "layers 1-3 (model.layers.*)" in text


def test_mistakes_say_what_works(pef, folder):
    assert run("explain", pef, "--layer", "7") == (
        2,
        "",
        "error: --layer 7: graph forward has layers 0-3",
    )
    assert run("explain", pef, "--n-chips=-1") == (
        2,
        "",
        "error: --n-chips -1: give a whole number, 1 or more",
    )
    assert run("explain", pef, "--n-chips", "5") == (
        2,
        "",
        f"error: {pef}: it has no plan for 5 chips; it has plans for 1, 2, 3, 4",
    )
    page = folder / "nowhere" / "page.html"
    code, out, errors = run("explain", pef, "--html", page)
    assert (code, out) == (2, "")
    assert errors == (
        f"error: --html: can't create a file in {page.parent}: No such file or directory"
    )


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser to open the page in: none of {', '.join(BROWSERS)} is installed")
    return found


def drawn(browser, page) -> str:
    """The page as the browser has it after its script ran, without script and data."""
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return re.sub(r"<(script|style).*?</\1>", "", done.stdout, flags=re.DOTALL)


SAY_ALL = """<div id="said"></div><script>
for (const g of document.querySelectorAll("g[tabindex]")) {
  g.dispatchEvent(new Event("click"));
  for (const dt of document.querySelectorAll(".details dt"))
    document.getElementById("said").append(`[${dt.textContent}] ${dt.nextSibling.textContent} `);
}
</script>"""


def count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


@pytest.mark.parametrize("n", [1, 3])
def test_page_draws_the_plan(browser, pef, folder, n):
    page = folder / f"page{n}.html"
    code, out, errors = run("explain", pef, "--n-chips", n, "--html", page)
    assert (code, out) == (0, f"{page}: open it in a browser\n"), errors
    links = set(re.findall(r"https?://[^\"' ]+", page.read_text()))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, not an address
    dom = drawn(browser, page)
    explanation = explain(pef, "--n-chips", n)
    (layer,) = [b for b in blocks(explanation) if len(b["layers"]) > 1]
    work = [node for node in layer["nodes"] if not node["is_view"]]
    assert count(r'<g class="node"', dom) == len(work) > 20
    assert count(r'<g class="exchange"', dom) == len(layer["exchanges"])
    for kind in ("M", "K", "heads", "tokens", "whole"):
        want = sum(node.get("split", {"kind": "whole"})["kind"] == kind for node in work)
        assert count(f'data-split="{kind}"', dom) == want, kind
    assert count(r'<div class="bar" data-chip=', dom) == n
    all_exchanges = [e for b in blocks(explanation) for e in b["exchanges"]]
    assert count(r'<span class="transfer" style="width:[0-9.]+%"></span>', dom) == len(
        all_exchanges
    )
    gemms = [node for node in nodes(explanation) if node.get("alternatives")]
    assert count(r'<tr class="gemm"', dom) == len(gemms)
    assert not re.search(r"undefined|NaN|\[object", dom)
    # What the panel says of each node and transfer, one after the other.
    said = folder / f"said{n}.html"
    said.write_text(page.read_text().replace("</body>", SAY_ALL + "</body>"))
    dom = drawn(browser, said)
    (panels,) = re.findall(r'<div id="said">(.*?)</div>', dom, flags=re.DOTALL)
    assert panels.count("[result]") == len(work)
    assert panels.count("[decided by]") == (len(work) if n > 1 else 0)
    assert panels.count("[forced by]") == len(layer["exchanges"])
    assert not re.search(r"undefined|NaN|\[object", panels)
