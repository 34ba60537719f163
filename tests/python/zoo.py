# Small random models of every architecture that the product promises, the same each time.
"""Each model has two layers, a fixed seed, and sizes that divide unevenly where it matters.

for entry in ZOO:
    model, inputs = entry.model(), entry.inputs()
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers

BATCH, SEQ, VOCAB = 2, 16, 97


@dataclass(frozen=True)
class Entry:
    name: str
    build: Callable[[], torch.nn.Module]
    output: str = "logits"  # the output that is compared
    inputs: Callable[..., dict[str, torch.Tensor]] = field(
        default=lambda batch=BATCH, seq=SEQ: tokens(batch, seq)
    )

    def model(self) -> torch.nn.Module:
        """In eval mode, f32; biases and norms are random too: none can be left out unnoticed."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        model = self.build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model


def tokens(batch: int = BATCH, seq: int = SEQ, vocab: int = VOCAB) -> dict[str, torch.Tensor]:
    """input_ids i64 (batch, seq)"""
    return {
        "input_ids": torch.randint(vocab, (batch, seq), generator=torch.Generator().manual_seed(1))
    }


def pixels(batch: int = BATCH, seq: int = SEQ) -> dict[str, torch.Tensor]:
    """pixel_values f32 (batch, 3, 16, 16); seq has no meaning here"""
    return {
        "pixel_values": torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    }


def features(batch: int = BATCH, seq: int = SEQ) -> dict[str, torch.Tensor]:
    """x f32 (batch, 24)"""
    return {"x": torch.randn(batch, 24, generator=torch.Generator().manual_seed(1))}


class Mlp(torch.nn.Module):
    """x (B, 24) -> (B, 10)"""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(24, 57)
        self.norm = torch.nn.LayerNorm(57)
        self.down = torch.nn.Linear(57, 10)

    def forward(self, x):
        return {"logits": self.down(torch.relu(self.norm(self.up(x))))}


def decoder(
    kind: str, heads: int, kv_heads: int, head_dim: int = 8, vocab: int = VOCAB, **options
) -> Callable:
    """Builds transformers' <kind>ForCausalLM; sizes under the names that the Llama family uses."""
    sizes = dict(
        vocab_size=vocab,
        hidden_size=heads * 8,
        intermediate_size=68,
        num_hidden_layers=2,
        pad_token_id=0,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=64,
    )
    return causal(kind, **{**sizes, **options})


def causal(kind: str, **config) -> Callable:
    return lambda: getattr(transformers, f"{kind}ForCausalLM")(config_class(kind)(**config))


def config_class(kind: str) -> type:
    return getattr(transformers, {"Gemma3": "Gemma3Text"}.get(kind, kind) + "Config")


def gpt2() -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCAB,
            n_positions=64,
            n_embd=48,
            n_layer=2,
            n_head=6,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def bert() -> torch.nn.Module:
    return transformers.BertModel(
        transformers.BertConfig(
            vocab_size=VOCAB,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=6,
            intermediate_size=68,
            max_position_embeddings=64,
        )
    )


def vit() -> torch.nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=6,
            intermediate_size=68,
            image_size=16,
            patch_size=4,
            num_labels=11,
        )
    )


ZOO = [
    Entry("llama_9_3", decoder("Llama", 9, 3, tie_word_embeddings=True)),
    Entry("llama_6_2", decoder("Llama", 6, 2)),
    Entry(
        "llama_5_1",
        decoder("Llama", 5, 1, vocab=131),
        inputs=lambda batch=BATCH, seq=SEQ: tokens(batch, seq, 131),
    ),
    Entry("mistral", decoder("Mistral", 6, 2, sliding_window=8)),
    Entry("qwen2", decoder("Qwen2", 6, 2)),
    Entry("qwen3", decoder("Qwen3", 6, 2, head_dim=12)),
    Entry("gemma", decoder("Gemma", 4, 1, head_dim=12)),
    Entry(
        "gemma3",
        decoder(
            "Gemma3", 4, 2, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        ),
    ),
    Entry("phi3", decoder("Phi3", 6, 2)),
    Entry("olmo2", decoder("Olmo2", 6, 3)),
    Entry("gpt2", gpt2),
    Entry(
        "opt",
        causal(
            "OPT",
            vocab_size=VOCAB,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=6,
            ffn_dim=68,
            max_position_embeddings=64,
            word_embed_proj_dim=48,
        ),
    ),
    Entry(
        "gpt_neox",
        causal(
            "GPTNeoX",
            vocab_size=VOCAB,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=6,
            intermediate_size=68,
            max_position_embeddings=64,
        ),
    ),
    Entry("bert", bert, output="last_hidden_state"),
    Entry("vit", vit, inputs=pixels),
    Entry("mlp", Mlp, inputs=features),
]
