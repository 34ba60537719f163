# The peers' processes: start, ask, and how much CPU the idle ones burn.
from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"
PYTHONS = {"shardwright": ROOT / ".venv/bin/python"}
LOGS = ROOT / "build/peers/logs"


class Failed(Exception):
    """A peer that can't do what it was asked for; the message is its reason."""


class Process:
    """One worker.py. It has loaded when the constructor returns."""

    def __init__(self, peer: str, settings: dict):
        self.peer, self.settings = peer, settings
        LOGS.mkdir(parents=True, exist_ok=True)
        log_name = f"{peer}-{settings['model']}-{settings['precision']}-{settings['chips']}.log"
        environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(ROOT / "build/peers/inductor"))
        for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            environment.pop(name, None)
        with open(LOGS / log_name, "a") as log:
            self.started_s = time.perf_counter()
            self.process = subprocess.Popen(
                [str(PYTHONS.get(peer, PEERS_PYTHON)), "worker.py", peer, json.dumps(settings)],
                cwd=HERE,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # it and its children can be counted, and ended, together
            )
        try:
            hello = self._receive()
        except Failed:
            self.close()
            raise
        self.figures, self.about = hello["figures"], hello["about"]

    def ask(self, request: dict) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"its process ended with status {self.process.wait()}; see {LOGS}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"].splitlines()[0][:200])
        return reply

    def cpu_s(self) -> float:
        """CPU time of all its threads and of its children."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[3]) == self.process.pid:  # its session
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()


def machine_cpu_s() -> float:
    """CPU time that all programs of the machine have used, with what its host took away."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def available_gb() -> float:
    """Memory that a new process can have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def limits(threads: int) -> dict:
    """Limits of the machine, measured now: see bench/limits_bench.cpp."""
    program = ROOT / "build/release/bench/limits_bench"
    result = subprocess.run([program, str(threads), "10"], check=True, stdout=subprocess.PIPE)
    return json.loads(result.stdout)
