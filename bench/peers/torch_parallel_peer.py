# PyTorch's tensor parallel as a peer: a process of one thread for each chip, joined by gloo.
from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch.distributed as dist
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch_peer import Peer as LocalPeer

COLUMNS = tuple(f"self_attn.{part}_proj" for part in "qkv") + ("mlp.gate_proj", "mlp.up_proj")
ROWS = ("self_attn.o_proj", "mlp.down_proj")
MOST_WAIT = timedelta(minutes=30)


class Peer(LocalPeer):
    """The process that main.py started is rank 0. It starts the others, each a worker.py as well
    (`settings`: rank, port), and hands them every request."""

    def __init__(self, settings: dict):
        config = json.loads((Path(settings["folder"]) / "config.json").read_text())
        ranks, rank = settings["chips"], settings.get("rank", 0)
        for name in ("num_attention_heads", "num_key_value_heads"):
            if config[name] % ranks:
                raise ValueError(
                    f"PyTorch's tensor parallel can't divide {name} {config[name]} by {ranks}"
                )
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        store = dist.TCPStore("127.0.0.1", settings.get("port", 0), is_master=rank == 0,
                              wait_for_workers=False)  # fmt: skip
        self.others = []
        if rank == 0:
            for other in range(1, ranks):
                theirs = json.dumps({**settings, "rank": other, "port": store.port})
                command = [sys.executable, "worker.py", "torch_parallel", theirs]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
                self.others.append(subprocess.Popen(command, **pipes))
        super().__init__({**settings, "threads": 1, "compiled": False})
        self.figures, self.static = ("PyTorch tensor parallel",), True
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=MOST_WAIT)
        plan = {"lm_head": ColwiseParallel(output_layouts=Replicate())}
        plan |= {f"model.layers.*.{name}": ColwiseParallel() for name in COLUMNS}
        plan |= {f"model.layers.*.{name}": RowwiseParallel() for name in ROWS}
        mesh = dist.device_mesh.init_device_mesh("cpu", (ranks,))
        parallelize_module(self.model, mesh, plan)
        for other in self.others:
            self._receive(other)

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        self._send({"figure": figure, "work": "prefill", "ids": ids[0].tolist(), "time": False})
        token = super().prefill(figure, ids)
        for other in self.others:
            self._receive(other)
        return token

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        request = {"figure": figure, "work": "decode", "ids": ids[0].tolist(), "new": n}
        self._send({**request, "time": False})
        result = super().decode(figure, ids, n)
        for other in self.others:
            self._receive(other)
        return result

    def _send(self, request: dict) -> None:
        for other in self.others:
            other.stdin.write(json.dumps(request) + "\n")
            other.stdin.flush()

    @staticmethod
    def _receive(other: subprocess.Popen) -> None:
        reply = json.loads(other.stdout.readline() or '{"error": "its process ended"}')
        if "error" in reply:
            raise RuntimeError(f"another rank: {reply['error']}")

    def close(self) -> None:
        for other in self.others:
            other.stdin.close()
            other.wait()
