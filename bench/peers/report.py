# The table, the JSON and the plot of `./dev bench peers`.
from __future__ import annotations

import json
from pathlib import Path

OURS = "Shardwright"
LEGEND = """\
ratio: Shardwright's speed / the best peer's. of limit: of gemm's peak (prefill) or of the read
bandwidth (decode); Shardwright's, or the best peer's where Shardwright has no figure."""


def best_peer(row: dict) -> str | None:
    """The fastest figure that is not ours."""
    peers = {name: value for name, value in row["figures"].items() if not name.startswith(OURS)}
    choose = min if row["unit"] == "s" else max
    return choose(peers, key=peers.get) if peers else None


def ours(row: dict) -> float | None:
    return next((v for name, v in row["figures"].items() if name.startswith(OURS)), None)


def ratio(row: dict) -> float | None:
    """How many times faster Shardwright is than the best peer."""
    mine, peer = ours(row), best_peer(row)
    if mine is None or peer is None:
        return None
    theirs = row["figures"][peer]
    return theirs / mine if row["unit"] == "s" else mine / theirs


def _cell(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    names.sort(key=lambda name: (not name.startswith(OURS), name))
    lines = [["model", "precision", "workload", "unit", *names, "ratio", "wanted", "of limit"]]
    for row in rows:
        lines.append(
            [row["model"], row["precision"], row["workload"], row["unit"]]
            + [_cell(row["figures"].get(name)) for name in names]
            + [_cell(ratio(row), 2), _cell(row["wanted"], 2), _cell(row["share_of_limit"], 2)]
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    left = 4  # columns of words
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def to_json(report: dict, path: Path) -> None:
    rows = [{**row, "best_peer": best_peer(row), "ratio": ratio(row)} for row in report["rows"]]
    path.write_text(json.dumps({"schema_version": 1, **report, "rows": rows}, indent=1) + "\n")


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
        scale = row["figures"][peer] if peer else ours(row)
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
