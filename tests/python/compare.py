# How outputs are compared: f32 by the relative 2-norm, language models in bf16 by the distribution.
from __future__ import annotations

import numpy as np
import torch


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want| in the 2-norm"""
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def divergence(got: np.ndarray, want: np.ndarray) -> float:
    """KL(want || got) of the next token in nats, the mean over positions; logits (..., V)."""
    p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (want, got))
    return (p.exp() * (p - q)).sum(-1).mean().item()
