# The two operators of a KV cache that ATen lacks, with what they compute.
"""`cache_write` and `cached_attention`, as PyTorch operators of the library `shardwright`.

Every token says where it stands: a batch entry at 7 tokens decodes beside one at 500, and a padded
token at -1 leaves no trace. By ATen's operators this would be index_put, arange, comparisons and a
mask over the whole cache, from which a compiler would have to guess what was meant.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@torch.library.custom_op("shardwright::cache_write", mutates_args=())
def cache_write(cache: Tensor, position: Tensor, source: Tensor) -> Tensor:
    """cache (B, H, T, D) with source (B, H, S, D) at position (B, S); outside [0, T) nothing."""
    result = cache.clone()
    for b, places in enumerate(position):
        seen = (places >= 0) & (places < cache.shape[2])
        result[b, :, places[seen]] = source[b, :, seen]
    return result


@cache_write.register_fake
def _(cache: Tensor, position: Tensor, source: Tensor) -> Tensor:
    return torch.empty_like(cache)


@torch.library.custom_op("shardwright::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position: Tensor,
    scale: float,
    window: int,
    enable_gqa: bool,
) -> Tensor:
    """query (B, H, S, D), key and value (B, KV heads, T, D or E) -> (B, H, S, E).

    A query at p = position (B, S) sees the keys (p - window, p], all up to p if window is 0; one
    that sees none gives zeros.
    """
    keys = torch.arange(key.shape[2])
    seen = keys <= position[:, None, :, None]
    if window:
        seen &= keys > position[:, None, :, None] - window
    result = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        scale=scale,
        enable_gqa=enable_gqa,
    )
    return torch.where(seen.any(-1, keepdim=True), result, 0)


@cached_attention.register_fake
def _(query, key, value, position, scale, window, enable_gqa):
    return query.new_empty(*query.shape[:-1], value.shape[-1])
