# The tables and the plot of `./dev bench peers`.
from __future__ import annotations

import json
from pathlib import Path

from workloads import OURS

LEGEND = """\
ratio: Shardwright's speed / that of the peer: of the best one, or, beside several chips, of each.
of limit: what Shardwright reaches of gemm's peak (prefill) or of the read bandwidth (decode)."""


def best_peer(row: dict) -> str | None:
    """The fastest figure that is not ours."""
    peers = {name: value for name, value in row["figures"].items() if not name.startswith(OURS)}
    choose = min if row["unit"] == "s" else max
    return choose(peers, key=peers.get) if peers else None


def opponents(row: dict) -> list[str]:
    if row["chips"] > 1:
        return [name for name in row["figures"] if name != OURS]
    return [best for best in [best_peer(row)] if best]


def compare(row: dict, against: str) -> dict | None:
    """{"against", "theirs", "ratio"}: how many times faster Shardwright is."""
    mine, theirs = row["figures"].get(OURS), row["figures"].get(against)
    if mine is None or theirs is None:
        return None
    ratio = theirs / mine if row["unit"] == "s" else mine / theirs
    return {"against": against, "theirs": theirs, "ratio": ratio}


def _cell(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def _verdict(value: float | None, wanted: float | None) -> str:
    if value is None or wanted is None:
        return ""
    return "reached" if value >= wanted else "MISSED"


def _columns(lines: list[list[str]], words: set[str]) -> str:
    """Under the names in the first line; those in `words` to the left."""
    left = [name in words for name in lines[0]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, widths, left)
        ).rstrip()
        for line in lines
    )


WORDS = {"model", "precision", "workload", "unit", "against", "verdict"}


def table(rows: list[dict]) -> str:
    """A line for each comparison."""
    lines = [["model", "precision", "workload", "unit", OURS, "against", "theirs", "ratio",
              "wanted", "verdict", "of limit", "wanted", "verdict"]]  # fmt: skip
    for row in rows:
        share, least = row["shares"].get(OURS), row["wanted_share"]
        for number, each in enumerate(row["comparisons"] or [{}]):
            first = number == 0  # the share is of the row, and told once
            lines.append(
                [row["model"], row["precision"], row["workload"], row["unit"]]
                + [_cell(row["figures"].get(OURS)), each.get("against", "-")]
                + [_cell(each.get("theirs")), _cell(each.get("ratio"), 2)]
                + [_cell(each.get("wanted"), 2), _verdict(each.get("ratio"), each.get("wanted"))]
                + [_cell(share if first else None, 2), _cell(least if first else None, 2)]
                + [_verdict(share, least) if first else ""]
            )
    return _columns(lines, WORDS)


def all_figures(rows: list[dict]) -> str:
    """A line for each row, a column for each peer."""
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    names.sort(key=lambda name: (not name.startswith(OURS), name))
    lines = [["model", "precision", "workload", "unit", *names]]
    for row in rows:
        words = [row["model"], row["precision"], row["workload"], row["unit"]]
        lines.append(words + [_cell(row["figures"].get(name)) for name in names])
    return _columns(lines, WORDS)


def verdicts(rows: list[dict]) -> str:
    said = [(each["ratio"], each["wanted"]) for row in rows for each in row["comparisons"]]
    said += [(row["shares"].get(OURS), row["wanted_share"]) for row in rows]
    reached = [_verdict(*pair) == "reached" for pair in said if _verdict(*pair)]
    return f"{sum(reached)} of {len(reached)} wanted figures reached"


def text(document: dict) -> str:
    """All that a run has found, for people."""
    rows, top = document["rows"], document["limits"]
    lines = [
        verdicts(rows),
        f"limits, {document['threads']} threads: f32 {top['f32_gflops']:.0f} GF/s, bf16 "
        f"{top['bf16_gflops']:.0f} GF/s, int8 {top['int8_gflops']:.0f} Gop/s, "
        f"read {top['read_gbytes']:.1f} GB/s; best of {document['rounds']} rounds",
        f"peers that wait: at most {document['idle_cpu']:.3f} of a core each; other programs: "
        f"{document['strangers_cpu']:.3f}",
        *dict.fromkeys(document["about"].values()),
        *(f"compiled in the first call: {line}" for line in document["compiled_in"]),
        *(f"skipped: {line}" for line in document["skipped"]),
        *(f"NOT THE SAME: {line}" for line in document["disagreements"]),
    ]
    return "\n\n".join((table(rows), all_figures(rows), LEGEND, "\n".join(lines)))


def to_json(document: dict, path: Path) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


def from_json(path: Path) -> dict:
    return json.loads(path.read_text())


def plot(rows: list[dict], path: Path) -> None:
    """Bars of every figure, as multiples of the best peer's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    names.sort(key=lambda name: (not name.startswith(OURS), name))
    colors = dict(zip(names, plt.get_cmap("tab10").colors))
    fig, axes = plt.subplots(figsize=(9, 0.7 + 0.2 * sum(len(r["figures"]) + 1 for r in rows)))
    y, ticks = 0.0, []
    for row in rows:
        peer = best_peer(row)
        scale = row["figures"][peer or OURS]
        top = y
        for name in (name for name in names if name in row["figures"]):
            value = row["figures"][name]
            length = scale / value if row["unit"] == "s" else value / scale
            axes.barh(y, length, color=colors[name], height=0.9)
            axes.text(length, y, f" {_cell(value)} {row['unit']}", va="center", fontsize=7)
            y += 1
        ticks.append(((top + y - 1) / 2, f"{row['model']} {row['precision']}\n{row['workload']}"))
        y += 1
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("speed / the best peer's")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colors[name]) for name in names]
    axes.legend(handles, names, fontsize=8, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, dpi=150)
