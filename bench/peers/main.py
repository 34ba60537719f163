# `./dev bench peers`: Shardwright beside llama.cpp, PyTorch and OpenVINO, same weights and tokens.
"""Every peer is a process of its own that loads once; then they take turns in rounds, each workload
beside the machine's limits, and the best of the rounds counts.

    ./dev bench peers --quick
    ./dev bench peers --only smollm2 --workload decode --json peers.json --plot peers.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import models
import report
from processes import ROOT, Failed, Process, available_gb, limits, machine_cpu_s
from transformers import AutoTokenizer
from workloads import (
    ONE_CHIP,
    PRECISIONS,
    WORKLOADS,
    Workload,
    share_of_limit,
    wanted,
    wanted_share,
)

# peer -> settings of each of its processes
PEERS = {
    "shardwright": ({},),
    "llama_cpp": ({},),
    "torch": ({"compiled": False}, {"compiled": True}),
    "openvino": ({},),
}
TEXT, EXPECTED = "The capital of France is", " Paris"
# Beside several chips: ourselves on one, and those of them that run in several processes.
PARALLEL = {
    "shardwright": (("shardwright", {}), ("shardwright", {"chips": 1, "name": ONE_CHIP})),
    "llama_cpp": tuple(
        ("llama_rpc", {"split": f"llama.cpp RPC, {s}"}) for s in ("layers", "tensors")
    ),
    "torch": (("torch_parallel", {}),),
}
MOST_PROCESSES = 2  # of those others: more than cores is our own exercise
MOST_IDLE_CPU = 0.02  # of a core, for a peer whose turn it is not
MOST_STRANGERS_CPU = 0.1  # of a core, for all other programs: OpenMP's barriers suffer most


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Group:
    """All peers with one model in one precision."""

    def __init__(self, args: argparse.Namespace, model: str, precision: str, chips: int):
        self.args, self.model, self.precision, self.chips = args, model, precision, chips
        self.works = works_of(args, model, precision, chips)
        self.folder = models.huggingface(model)
        self.config = models.config_of(self.folder)
        self.matrices = models.matrix_count(self.folder)
        self.processes: list[Process] = []
        self.about: dict[str, str] = {}
        self.skipped: list[str] = []
        self.disagreements: list[str] = []
        self.best: dict[tuple[str, str], float] = {}  # (workload, figure) -> seconds
        self.tokens: dict[tuple[str, str], list[int]] = {}
        self.compiled_in: list[str] = []  # first calls: torch.compile
        self.limits = dict.fromkeys(
            ("f32_gflops", "bf16_gflops", "int8_gflops", "read_gbytes"), 0.0
        )
        self.timed_s: dict[Process, float] = {}  # how long each had its turns
        self.idle: dict[Process, float] = {}  # CPU seconds of each in the turns of others
        self.strangers_s = 0.0  # CPU seconds of all other programs in the turns of any

    def skip(self, what: str, reason: object) -> None:
        self.skipped.append(f"{self.model} {self.precision} {what}: {reason}")
        say(f"  skipped {self.skipped[-1]}")

    def settings(self, peer: str, own: dict) -> dict:
        settings = {
            "model": self.model,
            "folder": str(self.folder),
            "precision": self.precision,
            "threads": self.args.threads,
            "chips": self.chips,
            "vocab": self.config["vocab_size"],
            "pef_folder": str(ROOT / "build/peers/pef"),
            "cache_folder": str(models.FOLDER),
            **own,
        }
        if peer.startswith("llama"):
            settings["gguf"] = str(models.gguf_file(self.model, self.precision))
        return settings

    def choices(self) -> Iterator[tuple[str, dict]]:
        if self.chips > 1:
            for peer in self.args.peers:
                if peer == "shardwright" or self.chips <= MOST_PROCESSES:
                    yield from PARALLEL.get(peer, ())
            return
        for peer in self.args.peers:
            for own in PEERS[peer]:
                if not (own.get("compiled") and self.args.quick):
                    yield peer, own

    def start(self) -> None:
        weights_gb = self.matrices * models.BYTES_PER_WEIGHT[self.precision] / 1e9
        for peer, own in self.choices():
            name = f"{peer} {own or ''}".strip()
            need_gb = (2.2 if own.get("compiled") else 1.2) * weights_gb + 1
            if available_gb() < need_gb:
                self.skip(name, f"needs {need_gb:.0f} GB, {available_gb():.0f} GB are free")
                continue
            say(f"  loading {name}")
            try:
                self.processes.append(Process(peer, self.settings(peer, own)))
            except Failed as error:
                self.skip(name, error)
                continue
            for figure in self.processes[-1].figures:
                self.about[figure] = self.processes[-1].about

    def prepare(self) -> None:
        """Every request once, not timed: what fails now is left out of the rounds."""
        for work in self.works:
            for process in self.processes:
                for figure in process.figures:
                    if work.seconds:
                        continue
                    start = time.perf_counter()
                    try:
                        reply = process.ask(self.first_request(work, figure))
                    except Failed as error:
                        self.skip(f"{work.name} {figure}", error)
                        continue
                    self.best[work.name, figure] = float("inf")
                    self.tokens[work.name, figure] = reply["tokens"]
                    took = time.perf_counter() - start
                    said = f"{work.name} {figure}, {took:.1f} s"
                    say(f"  ready: {said}")
                    if process.settings.get("compiled"):
                        self.compiled_in.append(f"{self.model} {self.precision} {said}")

    @property
    def must_agree(self) -> bool:
        """Real weights in f32 must say the same everywhere, or not all compute the same."""
        return self.model == "smollm2" and self.precision == "f32"

    def first_request(self, work: Workload, figure: str) -> dict:
        request = work.request(figure, timed=False)
        return request if self.must_agree else {**request, "new": min(work.new, 2)}

    def round(self, number: int) -> None:
        for work in self.works:
            if work.seconds:
                continue
            self.measure_limits()
            turns = [(p, figure) for p in self.processes for figure in p.figures]
            shift = number % max(1, len(turns))
            for process, figure in turns[shift:] + turns[:shift]:
                if (work.name, figure) in self.best:
                    self.time(work, process, figure)
        starts = [work for work in self.works if work.seconds]
        for process in self.processes if starts else ():
            self.time_start(starts, process, process.figures[-1])

    def measure_limits(self) -> None:
        for name, value in limits(self.args.threads).items():
            if name in self.limits:
                self.limits[name] = max(self.limits[name], value)

    def time(self, work: Workload, process: Process, figure: str) -> None:
        before = {each: each.cpu_s() for each in self.processes}
        machine, start = machine_cpu_s(), time.perf_counter()
        reply = process.ask(work.request(figure, timed=True))
        took = time.perf_counter() - start
        strangers = machine_cpu_s() - machine
        for each, was in before.items():
            burnt = each.cpu_s() - was
            strangers -= burnt
            if each is not process:
                self.idle[each] = self.idle.get(each, 0.0) + burnt
        self.timed_s[process] = self.timed_s.get(process, 0.0) + took
        self.strangers_s += max(0.0, strangers)
        self.best[work.name, figure] = min(self.best[work.name, figure], reply["seconds"])

    def time_start(self, works: list[Workload], running: Process, figure: str) -> None:
        """A fresh process, of the same peer, up to its first token. `running` only lends its
        settings; figures that would compile for minutes are left out."""
        if running.settings.get("compiled"):
            return
        process = None
        try:
            process = Process(running.peer, running.settings)
            reply = process.ask(works[0].request(figure, timed=False))
            start_s = time.perf_counter() - process.started_s
        except Failed as error:
            self.skip(f"{works[0].name} {figure}", error)
            return
        finally:
            if process:
                process.close()
        for work in works:
            key = work.name, figure
            seconds = reply["since_load_s"] if work.kind == "load" else start_s
            self.best[key] = min(self.best.get(key, float("inf")), seconds)

    def idle_cpu(self) -> float:
        """The most that a peer burns while it waits, of a core."""
        total = sum(self.timed_s.values())
        shares = (
            cpu_s / others_s
            for each, cpu_s in self.idle.items()
            if (others_s := total - self.timed_s.get(each, 0.0))
        )
        return max(shares, default=0.0)

    def strangers_cpu(self) -> float:
        """What all other programs used of a core, on average, while a peer was timed."""
        return self.strangers_s / max(sum(self.timed_s.values()), 1e-9)

    def rows(self) -> list[dict]:
        rows = []
        for work in self.works:
            figures = {
                figure: seconds if work.seconds else self.tokens_of(work) / seconds
                for (name, figure), seconds in self.best.items()
                if name == work.name and seconds < float("inf")
            }
            if not figures:
                continue
            shares = {
                figure: share_of_limit(
                    work, figure, rate, self.config, self.matrices, self.precision, self.limits
                )
                for figure, rate in figures.items()
            }
            row = {
                "model": self.model,
                "precision": self.precision,
                "workload": work.name,
                "chips": work.chips,
                "unit": "s" if work.seconds else "tokens/s",
                "figures": figures,
                "shares": shares,
                "wanted_share": wanted_share(work),
                "limits": self.limits,
            }
            pairs = [report.compare(row, against) for against in report.opponents(row)]
            row["comparisons"] = [
                {**pair, "wanted": self.wanted(work, pair["against"], shares)}
                for pair in pairs
                if pair
            ]
            rows.append(row)
        return rows

    def wanted(self, work: Workload, against: str, shares: dict) -> float | None:
        return wanted(work, self.precision, against, self.limits, shares[against])

    @staticmethod
    def tokens_of(work: Workload) -> int:
        return work.batch * (work.prompt if work.kind == "prefill" else work.new)

    def check_text(self) -> None:
        if not self.must_agree or self.chips > 1:
            return
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        ids = tokenizer(TEXT)["input_ids"]
        for process in self.processes:
            for figure in process.figures:
                request = {"figure": figure, "work": "decode", "ids": ids, "new": 8, "time": False}
                try:
                    tokens = process.ask(request)["tokens"]
                except Failed as error:
                    self.skip(f"text {figure}", error)
                    continue
                said = tokenizer.decode(tokens)
                say(f"  {figure}: {TEXT}{said!r}")
                if not said.startswith(EXPECTED):
                    self.disagreements.append(f"{figure} continues {TEXT!r} with {said!r}")

    def check_tokens(self) -> None:
        if not self.must_agree:
            return
        for work in self.works:
            said = {f: tokens for (name, f), tokens in self.tokens.items() if name == work.name}
            first = next(iter(said), None)
            self.disagreements += [
                f"{work.name}: {first} says {said[first]}, {figure} {tokens}"
                for figure, tokens in said.items()
                if tokens != said[first]
            ]

    def run(self) -> None:
        say(f"{self.model} {self.precision}, {self.chips} chip{'s' * (self.chips > 1)}")
        try:
            self.start()
            self.prepare()
            self.check_text()
            self.check_tokens()
            for number in range(self.args.rounds):
                say(f"  round {number + 1} of {self.args.rounds}")
                self.round(number)
        finally:
            for process in self.processes:
                process.close()


def works_of(args: argparse.Namespace, model: str, precision: str, chips: int) -> list[Workload]:
    return [
        work
        for work in args.workloads
        if work.chips == chips and model in work.models and precision in work.precisions
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [work.name for work in WORKLOADS]
    parser.add_argument("--only", choices=models.NAMES, help="one model alone")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--workload", nargs="+", choices=names, metavar="NAME", default=names,
                        help=", ".join(names))  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5, help="0: only make what they need")
    parser.add_argument("--threads", type=int, default=2, help="of everyone")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="SmolLM2 alone, two rounds, without torch.compile, which takes minutes the first time",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--show",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="print what earlier runs wrote with --json, and run nothing",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    if args.quick:
        args.only, args.rounds = args.only or "smollm2", min(args.rounds, 2)
    args.models = [args.only] if args.only else list(models.NAMES)
    args.workloads = [work for work in WORKLOADS if work.name in args.workload]
    return args


def document(args: argparse.Namespace, groups: list[Group]) -> dict:
    """All that is known up to now."""
    return {
        "schema_version": 2,
        "rows": [row for group in groups for row in group.rows()],
        "limits": {name: max(g.limits[name] for g in groups) for name in groups[0].limits},
        "about": {name: text for group in groups for name, text in group.about.items()},
        "compiled_in": [line for group in groups for line in group.compiled_in],
        "skipped": [line for group in groups for line in group.skipped],
        "disagreements": [line for group in groups for line in group.disagreements],
        "idle_cpu": max(group.idle_cpu() for group in groups),
        "strangers_cpu": max(group.strangers_cpu() for group in groups),
        "rounds": args.rounds,
        "threads": args.threads,
    }


def main() -> int:
    args = parse()
    if args.show:
        print(*(report.text(report.from_json(path)) for path in args.show), sep="\n\n")
        return 0
    groups: list[Group] = []
    for model in args.models:
        for precision in args.precision:
            for chips in sorted({work.chips for work in args.workloads}):
                if not works_of(args, model, precision, chips):
                    continue
                groups.append(Group(args, model, precision, chips))
                groups[-1].run()
                say(report.table(groups[-1].rows()))
                if args.json:  # after each: a run of an hour that is ended early was not in vain
                    report.to_json(document(args, groups), args.json)
    if not groups:
        print("none of these workloads is run with this model and precision", file=sys.stderr)
        return 2
    result = document(args, groups)
    print(report.text(result))
    if args.plot:
        report.plot(result["rows"], args.plot)
    idle, strangers = result["idle_cpu"], result["strangers_cpu"]
    if idle > MOST_IDLE_CPU:
        print("a peer that waits burns CPU: the others' figures are too low", file=sys.stderr)
    if strangers > MOST_STRANGERS_CPU:
        print("other programs used the cores meanwhile: run it again alone", file=sys.stderr)
    trusted = idle <= MOST_IDLE_CPU and strangers <= MOST_STRANGERS_CPU
    return 0 if trusted and not result["disagreements"] else 1


if __name__ == "__main__":
    sys.exit(main())
