# llama.cpp over two servers of one thread each: whole layers on each, and tensors split over both.
from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import llama_cpp as llama
from llama_cpp_peer import Peer as LocalPeer

SPLITS = {
    "llama.cpp RPC, layers": llama.LLAMA_SPLIT_MODE_LAYER,
    "llama.cpp RPC, tensors": llama.LLAMA_SPLIT_MODE_TENSOR,
}
STARTING_S = 30
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def library(name: str) -> ctypes.CDLL:
    path = Path(llama.__file__).parent / f"lib/lib{name}.so"
    if not path.exists():
        raise RuntimeError(f"llama.cpp was built without {path.name}: it needs -DGGML_RPC=ON")
    return ctypes.CDLL(str(path))


class Peer(LocalPeer):
    """`settings`: chips is the number of servers, split the one figure; flash attention is on."""

    def __init__(self, settings: dict):
        figure = settings["split"]
        self.figures = (figure,)
        self.vocab, self.threads, self.contexts = settings["vocab"], 1, {}
        ports = [free_port() for _ in range(settings["chips"])]
        self.servers = [subprocess.Popen([sys.executable, __file__, str(port)]) for port in ports]
        try:
            self._load(settings["gguf"], ports, SPLITS[figure])
        except BaseException:
            self.close()
            raise

    def _load(self, gguf: str, ports: list[int], split: int) -> None:
        llama.llama_backend_init()
        add_server = library("ggml-rpc").ggml_backend_rpc_add_server
        add_server.restype, add_server.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        device = library("ggml-base").ggml_backend_reg_dev_get
        device.restype, device.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
        devices = []
        for port in ports:
            wait_for(port)
            devices.append(device(add_server(f"127.0.0.1:{port}".encode()), 0))
        self.devices = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        params = llama.llama_model_default_params()
        kind = dict(params._fields_)["devices"]
        params.devices = ctypes.cast(self.devices, kind)
        params.n_gpu_layers = 999  # all of them on the servers
        params.split_mode = split
        self.model = llama.llama_model_load_from_file(gguf.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp can't load {gguf} over {len(ports)} servers")

    def _flash(self, figure: str) -> bool:
        return True  # the faster, and the only one that split tensors can have

    def close(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    end = time.perf_counter() + STARTING_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.perf_counter() > end:
                raise
            time.sleep(0.05)


def serve(port: int) -> None:
    """One server of one thread, until its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    by_type = library("ggml").ggml_backend_dev_by_type
    by_type.restype = ctypes.c_void_p
    cpu = ctypes.c_void_p(by_type(0))  # GGML_BACKEND_DEVICE_TYPE_CPU
    start = library("ggml-rpc").ggml_backend_rpc_start_server
    start.restype, size = None, ctypes.c_size_t
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, size, size, ctypes.c_void_p]
    start(f"127.0.0.1:{port}".encode(), None, 1, 1, ctypes.byref(cpu))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
