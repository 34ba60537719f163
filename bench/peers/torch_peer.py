# PyTorch as a peer: transformers' model, eager and through torch.compile.
from __future__ import annotations

import time

import numpy as np
import torch
import transformers

MOST_TOKENS = 128  # of the static cache: prompt and new tokens of a decode
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Peer:
    """`settings["compiled"]` chooses: freezing gives the weights a layout of its own."""

    def __init__(self, settings: dict):
        if settings["precision"] not in DTYPES:
            raise ValueError(f"PyTorch runs {' and '.join(DTYPES)} here")
        torch.set_num_threads(settings["threads"])
        torch.set_grad_enabled(False)
        self.compiled = settings["compiled"]
        name = "PyTorch compiled" if self.compiled else "PyTorch"
        self.figures = (name,)
        self.about = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            settings["folder"], dtype=DTYPES[settings["precision"]], local_files_only=True
        ).eval()
        self.forward = self.model.forward
        if self.compiled:
            torch._inductor.config.freezing = True
            torch._dynamo.config.cache_size_limit = 32
            self.forward = torch.compile(self.model.forward, dynamic=False, fullgraph=True)
        self.static = self.compiled
        self.caches: dict[int, transformers.StaticCache] = {}

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        logits = self.forward(torch.from_numpy(ids), use_cache=False, logits_to_keep=1).logits
        return logits[0, -1].argmax()

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        cache = self._cache(len(ids))
        step = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        where = torch.arange(ids.shape[1])
        # The prompt is not timed: eager, so that nothing more needs to be compiled.
        logits = self.model(torch.from_numpy(ids), position_ids=where[None], **step).logits
        tokens = logits[:, -1].argmax(-1)
        first = [int(tokens[0])]
        start = time.perf_counter()
        for i in range(ids.shape[1], ids.shape[1] + n):
            position = torch.full((1, 1), i)
            logits = self.forward(tokens[:, None], position_ids=position, **step).logits
            tokens = logits[:, -1].argmax(-1)
            first.append(int(tokens[0]))
        return time.perf_counter() - start, first

    def _cache(self, rows: int):
        """Compiled code wants fixed shapes; alone, eager is best with a cache that grows."""
        if not self.static:
            return transformers.DynamicCache(config=self.model.config)
        if rows not in self.caches:
            self.caches[rows] = transformers.StaticCache(
                config=self.model.config, max_cache_len=MOST_TOKENS
            )
        self.caches[rows].reset()
        return self.caches[rows]
