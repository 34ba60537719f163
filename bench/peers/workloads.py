# The rows of the table: what is asked for, what a token costs at least, what ratio is wanted.
from __future__ import annotations

from dataclasses import dataclass

import models

PRECISIONS = ("f32", "bf16", "int8")
OURS, ONE_CHIP = "Shardwright", "Shardwright, one chip"
FAST_DOT = 1.3  # bf16 dot peak over f32 FMA peak from which on a processor's dot is "fast"
LEAST_OF_READ = 0.85  # of the read bandwidth, for a decode of one sequence


@dataclass(frozen=True)
class Workload:
    """`kind`: prefill: tokens of the prompt per second; decode: new tokens per second, all rows
    together, behind the prompts; load: seconds from a mapped file to the first token; start: the
    same from the start of the process."""

    name: str
    kind: str
    prompt: int
    batch: int = 1
    new: int = 0
    chips: int = 1
    models: tuple[str, ...] = models.NAMES
    precisions: tuple[str, ...] = PRECISIONS

    @property
    def seconds(self) -> bool:
        return self.kind in ("load", "start")

    def request(self, figure: str, timed: bool) -> dict:
        work = "decode" if self.kind == "decode" else "prefill"
        shape = {"batch": self.batch, "prompt": self.prompt, "new": self.new}
        return {"figure": figure, "work": work, "time": timed, **shape}


WORKLOADS = (
    Workload("prefill 128", "prefill", 128),
    Workload("prefill 512", "prefill", 512),
    Workload("decode", "decode", 64, new=32),
    Workload("batch 8", "decode", 64, batch=8, new=32, precisions=("bf16",)),
    Workload("load", "load", 8),
    Workload("start", "start", 8),
    Workload("2 chips prefill 512", "prefill", 512, chips=2),
    Workload("2 chips decode", "decode", 64, new=32, chips=2),
    Workload("8 chips decode", "decode", 64, new=32, chips=8, models=("smollm2",)),
)


def wanted(
    work: Workload, precision: str, against: str, limits: dict, their_share: float | None
) -> float | None:
    """The least ratio of Shardwright's speed to that of `against`, which reaches `their_share` of
    the machine's limit; None: the figure is for orientation."""
    if against == ONE_CHIP:
        return {2: 0.97, 8: 0.5}[work.chips]
    if work.chips > 1:
        return None if work.kind == "prefill" and against.startswith("llama.cpp") else 2.0
    if work.seconds:
        return 1.0 if work.kind == "load" else None
    if work.kind == "decode":
        least = {"f32": 1.1, "bf16": 1.3, "int8": 1.2}[precision]
        # Nobody reads faster than memory: beside a peer that is there already, a tie is all.
        return 1.0 if their_share and their_share * least > 1 else least
    if precision == "bf16":
        return 1.2 if limits["bf16_gflops"] > FAST_DOT * limits["f32_gflops"] else 1.6
    return 1.2


def wanted_share(work: Workload) -> float | None:
    """The least share of the machine's limit."""
    return LEAST_OF_READ if work.kind == "decode" and work.chips == work.batch == 1 else None


def flops_per_token(config: dict, matrices: int, prompt: int) -> float:
    """Of a prefill: every matrix but lm_head, whose one row counts next to nothing; attention to
    the tokens before, half of them on average."""
    lm_head = config["vocab_size"] * config["hidden_size"]
    attention = 4 * config["hidden_size"] * prompt / 2 * config["num_hidden_layers"]
    return 2 * (matrices - lm_head) + attention


def bytes_per_step(
    config: dict, matrices: int, precision: str, work: Workload, figure: str
) -> float:
    """Of a decode step: every matrix once, and the cache of each row, half full on average."""
    weights = matrices * models.BYTES_PER_WEIGHT[precision]
    if precision == "int8" and figure.startswith("llama.cpp"):
        weights = matrices * models.BYTES_IN_Q8_0
    head = config["hidden_size"] // config["num_attention_heads"]
    cached = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head
    bytes_of_number = 4 if precision == "f32" else 2
    return weights + work.batch * cached * bytes_of_number * (work.prompt + work.new / 2)


def share_of_limit(
    work: Workload,
    figure: str,
    rate: float,
    config: dict,
    matrices: int,
    precision: str,
    limits: dict,
) -> float | None:
    """Of gemm's peak for prefill, of the read bandwidth for decode."""
    if work.kind == "prefill":
        flops = rate * flops_per_token(config, matrices, work.prompt)
        return flops * 1e-9 / limits[f"{precision}_gflops"]
    if work.kind == "decode":
        read = bytes_per_step(config, matrices, precision, work, figure) * rate / work.batch
        return read * 1e-9 / limits["read_gbytes"]
    return None
