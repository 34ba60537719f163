# llama.cpp as a peer, through the C functions: flash attention on and off.
from __future__ import annotations

import ctypes
import time

import llama_cpp as llama
import numpy as np

MOST_TOKENS = 640  # of a row


class Peer:
    figures = ("llama.cpp", "llama.cpp flash")
    about = f"llama.cpp of llama-cpp-python {llama.__version__}"

    def __init__(self, settings: dict):
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(settings["gguf"].encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp can't load {settings['gguf']}")
        self.vocab = settings["vocab"]
        self.threads = settings["threads"]
        self.contexts: dict[tuple[str, int], Context] = {}

    def _context(self, figure: str, rows: int) -> Context:
        """An empty one."""
        if (figure, rows) not in self.contexts:
            self.contexts[figure, rows] = Context(
                self.model, self.vocab, self.threads, self._flash(figure), rows
            )
        self.contexts[figure, rows].clear()
        return self.contexts[figure, rows]

    def _flash(self, figure: str) -> bool:
        return figure.endswith("flash")

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        return self._context(figure, len(ids)).append(ids, 0)[0].argmax()

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        context = self._context(figure, len(ids))
        tokens = context.append(ids, 0).argmax(axis=1)
        first = [int(tokens[0])]
        start = time.perf_counter()
        for step in range(n):
            tokens = context.append(tokens[:, None], ids.shape[1] + step).argmax(axis=1)
            first.append(int(tokens[0]))
        return time.perf_counter() - start, first


class Context:
    """A cache of `rows` sequences, each with cells of its own."""

    def __init__(self, model, vocab: int, threads: int, flash: bool, rows: int):
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = most = rows * MOST_TOKENS
        params.n_ubatch = 512
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False
        params.flash_attn_type = (
            llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = llama.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError("llama.cpp can't make a context")
        self.vocab = vocab
        # A batch over NumPy's arrays: filling it costs next to nothing.
        self.token, self.pos, self.row = (np.zeros(most, np.int32) for _ in range(3))
        self.logits = np.zeros(most, np.int8)
        self.n_rows = np.ones(most, np.int32)
        self.row_pointers = self.row.ctypes.data + 4 * np.arange(most, dtype=np.uintp)
        self.batch = llama.llama_batch()
        for name, array in (
            ("token", self.token),
            ("pos", self.pos),
            ("n_seq_id", self.n_rows),
            ("seq_id", self.row_pointers),
            ("logits", self.logits),
        ):
            kind = type(getattr(self.batch, name))
            setattr(self.batch, name, ctypes.cast(array.ctypes.data, kind))

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), False)

    def append(self, ids: np.ndarray, position: int) -> np.ndarray:
        """ids (B, tokens) behind `position` tokens -> logits (B, vocab) of the last of each."""
        rows, columns = ids.shape
        self.batch.n_tokens = n = ids.size
        self.token[:n] = ids.ravel()
        self.pos[:n] = np.tile(np.arange(position, position + columns), rows)
        self.row[:n] = np.repeat(np.arange(rows), columns)
        self.logits[:n] = np.arange(n) % columns == columns - 1
        status = llama.llama_decode(self.context, self.batch)
        if status:
            raise RuntimeError(f"llama_decode failed with {status}")
        return np.stack([self._logits(row * columns + columns - 1) for row in range(rows)])

    def _logits(self, i: int) -> np.ndarray:
        data = llama.llama_get_logits_ith(self.context, i)
        address = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, (self.vocab,))
