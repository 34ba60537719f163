# The sharding solver against an ILP (HiGHS): the same optimum on small and 8B-sized models.
"""test_shard writes the problems with its own optima (SHARDWRIGHT_PROBLEMS names the folder); here
each is solved again as an ILP: a binary for each value of each variable, a flow for each entry of
each table.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

highspy = pytest.importorskip("highspy", reason="highspy is not installed: no ILP to compare with")

ROOT = pathlib.Path(__file__).parents[2]
SLOWEST_S = 60  # of one ILP; those that take longer are not comparable and are counted


def active(problem):
    """Variables with a choice; the tables between them, the costs of fixed neighbours folded in."""
    costs = [list(v["costs"]) for v in problem["variables"]]
    tables = []
    for table in problem["tables"]:
        a, b = table["a"], table["b"]
        matrix = np.array(table["costs"], dtype=np.int64).reshape(len(costs[a]), len(costs[b]))
        if len(costs[a]) == 1 or len(costs[b]) == 1:
            for i in range(len(costs[a])):
                for j in range(len(costs[b])):
                    if len(costs[b]) == 1:
                        costs[a][i] += int(matrix[i, j])
                    else:
                        costs[b][j] += int(matrix[i, j])
        else:
            tables.append((a, b, matrix))
    return costs, tables


def total(costs, tables, choice):
    """Exact: in Python's integers."""
    return sum(c[i] for c, i in zip(costs, choice)) + sum(
        int(m[choice[a], choice[b]]) for a, b, m in tables
    )


def solve_ilp(costs, tables, scale):
    """The choice of the ILP, and its lower bound; (None, bound) if it took too long."""
    model = highspy.HighsLp()
    first, objective, rows = {}, [], []  # rows: (columns, coefficients, right side)
    for v, c in enumerate(costs):
        if len(c) == 1:
            continue
        first[v] = len(objective)
        objective += c
        rows.append((range(first[v], first[v] + len(c)), [1.0] * len(c), 1.0))
    n_binary = len(objective)
    for a, b, matrix in tables:
        flow = len(objective) + np.arange(matrix.size).reshape(matrix.shape)
        objective += matrix.reshape(-1).tolist()
        for variable, lines in ((a, flow), (b, flow.T)):
            for i, line in enumerate(lines):
                rows.append(([*line, first[variable] + i], [1.0] * len(line) + [-1.0], 0.0))
    model.num_col_ = len(objective)
    model.num_row_ = len(rows)
    model.col_cost_ = np.array(objective, dtype=float) / scale
    model.col_lower_ = np.zeros(len(objective))
    model.col_upper_ = np.ones(len(objective))
    model.row_lower_ = model.row_upper_ = np.array([r[2] for r in rows])
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0] + [len(r[0]) for r in rows])
    model.a_matrix_.index_ = np.concatenate([np.array(r[0]) for r in rows])
    model.a_matrix_.value_ = np.concatenate([np.array(r[1]) for r in rows])
    model.integrality_ = [highspy.HighsVarType.kInteger] * n_binary + [
        highspy.HighsVarType.kContinuous
    ] * (len(objective) - n_binary)
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("mip_rel_gap", 0.0)
    highs.setOptionValue("mip_abs_gap", 1e-9)
    highs.setOptionValue("time_limit", float(SLOWEST_S))
    highs.passModel(model)
    highs.run()
    bound = highs.getInfo().mip_dual_bound * scale + sum(c[0] for c in costs if len(c) == 1)
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None, bound
    x = np.array(highs.getSolution().col_value)
    choice = [
        int(np.argmax(x[first[v] : first[v] + len(c)])) if v in first else 0
        for v, c in enumerate(costs)
    ]
    return choice, bound


def compare(path):
    """ "" if both agree, "late" if the ILP took too long, else what differs."""
    problem = json.loads(path.read_text())
    costs, tables = active(problem)
    ours = total(costs, tables, problem["choice"])
    if ours != problem["optimum"]:
        return f"the choice costs {ours}, stated is {problem['optimum']}"
    if all(len(c) == 1 for c in costs):
        return ""
    choice, bound = solve_ilp(costs, tables, max(ours, 1))
    if choice is None:
        return "late"
    theirs = total(costs, tables, choice)
    # The ILP works in doubles: its optimum may be worse than ours by its tolerance, never better.
    if theirs < ours or theirs > ours * (1 + 1e-9) or bound < ours * (1 - 1e-6):
        return f"ours costs {ours}, the ILP's {theirs}, its bound is {bound}"
    return ""


@pytest.mark.slow
def test_the_solver_reaches_the_optimum_of_an_ilp(tmp_path):
    programs = [p for p in ROOT.glob("build/*/tests/test_shard") if os.access(p, os.X_OK)]
    if not programs:
        pytest.skip("test_shard is not built: ./dev build")
    program = max(programs, key=lambda p: p.stat().st_mtime)
    subprocess.run(
        [program, "--gtest_filter=Export.*"],
        env={**os.environ, "SHARDWRIGHT_PROBLEMS": str(tmp_path)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    paths = sorted(tmp_path.glob("*.json"))
    assert len(paths) > 100
    results = {path.stem: compare(path) for path in paths}
    late = [name for name, result in results.items() if result == "late"]
    print(f"{len(paths) - len(late)} problems compared; too slow for the ILP: {late}")
    assert {name: result for name, result in results.items() if result not in ("", "late")} == {}
    assert len(late) < len(paths) / 10
