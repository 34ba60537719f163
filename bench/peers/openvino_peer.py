# OpenVINO as a peer: transformers' model, converted with its KV cache as state.
from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as opset
from openvino._offline_transformations import apply_make_stateful_transformation

TYPES = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}  # int8: weights alone, by NNCF


class Peer:
    figures = ("OpenVINO",)
    about = f"OpenVINO {ov.__version__}"

    def __init__(self, settings: dict):
        precision = settings["precision"]
        path = Path(settings["cache_folder"]) / f"{settings['model']}-{precision}.xml"
        if not path.exists():
            convert(settings["folder"], precision, path)
        options = {"INFERENCE_NUM_THREADS": settings["threads"], "PERFORMANCE_HINT": "LATENCY"}
        if precision in TYPES:  # for int8 its defaults: activations and cache in 8 bits too
            options["INFERENCE_PRECISION_HINT"] = TYPES[precision]
            options["KV_CACHE_PRECISION"] = TYPES[precision]
        model = ov.Core().compile_model(path, "CPU", options)
        self.request = model.create_infer_request()

    def prefill(self, figure: str, ids: np.ndarray) -> int:
        self.request.reset_state()
        return self._logits(ids, 0)[0].argmax()

    def decode(self, figure: str, ids: np.ndarray, n: int) -> tuple[float, list[int]]:
        self.request.reset_state()
        tokens = self._logits(ids, 0).argmax(axis=1)
        first = [int(tokens[0])]
        start = time.perf_counter()
        for step in range(n):
            tokens = self._logits(tokens[:, None], ids.shape[1] + step).argmax(axis=1)
            first.append(int(tokens[0]))
        return time.perf_counter() - start, first

    def _logits(self, ids: np.ndarray, position: int) -> np.ndarray:
        """ids (B, tokens) behind `position` tokens -> logits (B, vocab) of the last of each."""
        rows, columns = ids.shape
        positions = np.broadcast_to(np.arange(position, position + columns), (rows, columns))
        self.request.infer(
            {
                "input_ids": ids,
                "position_ids": np.ascontiguousarray(positions),
                "beam_idx": np.arange(rows, dtype=np.int32),
            },
            share_outputs=True,
        )
        return self.request.get_output_tensor(0).data[:, -1]


class _Past:
    """What transformers asks of a cache, over plain tensors: keys and values of layer after layer.
    Its own starts with empty tensors, which OpenVINO can't convert."""

    is_compileable = False

    def __init__(self, parts: list):
        self.parts = parts

    def update(self, keys, values, layer, *args, **kwargs):
        import torch

        for i, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self.parts[i] = torch.cat((self.parts[i], new), dim=2)
        return self.parts[2 * layer], self.parts[2 * layer + 1]

    def get_seq_length(self, layer=0):
        return self.parts[0].shape[2]


def convert(folder: str, precision: str, path: Path) -> None:
    """Writes the model as OpenVINO's files, weights in `precision`."""
    import torch
    from models import making
    from transformers import LlamaForCausalLM

    making(path)

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    names = [f"{kind}.{layer}" for layer in range(config.num_hidden_layers) for kind in "kv"]

    class WithCache(torch.nn.Module):
        """Takes and gives the cache as plain tensors (B, KV heads, tokens, D)."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, position_ids, beam_idx, past):
            cache = _Past([part.index_select(0, beam_idx) for part in past])
            seen, tokens = past[0].shape[2], input_ids.shape[1]
            rows, columns = torch.arange(tokens)[:, None] + seen, torch.arange(seen + tokens)
            out = self.model(
                input_ids,
                position_ids=position_ids,
                attention_mask=(columns <= rows)[None, None],
                past_key_values=cache,
                logits_to_keep=1,
            )
            return out.logits.float(), *cache.parts

    ids = torch.ones(2, 4, dtype=torch.long)
    past = [torch.zeros(2, config.num_key_value_heads, 3, head, dtype=dtype) for _ in names]
    example = {
        "input_ids": ids,
        "position_ids": torch.arange(3, 7)[None].expand(2, 4),
        "beam_idx": torch.arange(2, dtype=torch.int32),
        "past": past,
    }
    with torch.no_grad():
        converted = ov.convert_model(WithCache(), example_input=example)
    inputs = converted.inputs
    for given, name in zip(inputs, ["input_ids", "position_ids", "beam_idx", *names], strict=True):
        given.get_tensor().set_names({name})
    for made, name in zip(converted.outputs, ["logits", *(f"new {n}" for n in names)], strict=True):
        made.get_tensor().set_names({name})
    cache_shape = [-1, config.num_key_value_heads, -1, head]
    shapes = [[-1, -1], [-1, -1], [-1], *([cache_shape] * len(names))]
    converted.reshape({given: ov.PartialShape(shape) for given, shape in zip(inputs, shapes)})
    apply_make_stateful_transformation(converted, {name: f"new {name}" for name in names})
    _start_empty(converted)
    if precision == "int8":
        import nncf

        converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM)
    ov.save_model(converted, path, compress_to_fp16=False)


def _start_empty(model: ov.Model) -> None:
    """A state that was reset holds no tokens, for as many rows as input_ids has."""
    size = opset.shape_of(model.input("input_ids"), output_type="i64")
    rows = opset.gather(size, opset.constant([0]), opset.constant(0))
    for op in model.get_ops():
        if op.get_type_name() == "ReadValue":
            dims = [dim.min_length for dim in op.get_output_partial_shape(0)][1:]
            shape = opset.concat([rows, opset.constant(np.array(dims, dtype=np.int64))], axis=0)
            zero = opset.constant(0, dtype=op.get_output_element_type(0))
            op.set_arguments([opset.broadcast(zero, shape)])
    model.validate_nodes_and_infer_types()
