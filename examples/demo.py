# `./dev demo`: SmolLM2-135M on two chips against one chip and against PyTorch.
"""Compiles SmolLM2-135M in weight mode, continues a prompt on two chips, and checks the result.

The compiled graph takes TOKENS tokens; a shorter text is filled up at its end, which causal
attention doesn't see. Each new token runs the whole graph: there is no KV cache here yet.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

import shardwright as sw
from shardwright import capture, huggingface

TOKENS = 64


def step(number: int, text: str) -> None:
    print(f"\n[{number}] {text}", flush=True)


def continue_prompt(session: sw.Session, prompt: torch.Tensor, count: int) -> list[int]:
    """Greedy: `count` token ids after `prompt` (1, tokens)."""
    used = prompt.shape[1]
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    ids[:, :used] = prompt
    for position in range(used, used + count):
        logits = session.run({"input_ids": ids})["logits"]  # (1, TOKENS, vocabulary)
        ids[0, position] = logits[0, position - 1].argmax()
    return ids[0, used : used + count].tolist()


def difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, in the 2-norm."""
    return ((result - expected).norm() / expected.norm()).item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-chips", type=int, default=2)
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--new-tokens", type=int, default=16)
    args = parser.parse_args()

    step(1, "SmolLM2-135M, real weights: 30 layers, 9 heads, 3 KV heads, 134.5 M parameters")
    folder = huggingface.smollm2()
    model, tokenizer = huggingface.load(folder), huggingface.tokenizer(folder)
    prompt = tokenizer(args.prompt, return_tensors="pt").input_ids
    if prompt.shape[1] + args.new_tokens > TOKENS:
        parser.error(f"prompt and --new-tokens make more than {TOKENS} tokens")

    step(2, f"Capture once, compile once for 1 and {args.n_chips} chips in weight mode")
    start = time.perf_counter()
    path = capture.save(
        capture.capture_forward(model, huggingface.example_inputs(model, 1, TOKENS)),
        Path("out/smollm2/smollm2.pt2"),
    )
    pef = sw.compile(
        path,
        pef_name="smollm2",
        tensor_parallel="weight",
        n_chips=sorted({1, args.n_chips}),
        inference=True,
    )
    seconds = time.perf_counter() - start
    print(f"    {pef.path}, {pef.size_bytes / 1e6:.0f} MB, {seconds:.1f} s")

    step(3, f"Continue a prompt on {args.n_chips} chips")
    session = sw.load(pef, n_chips=args.n_chips)
    start = time.perf_counter()
    tokens = continue_prompt(session, prompt, args.new_tokens)
    rate = args.new_tokens / (time.perf_counter() - start)
    print(f"    {args.prompt!r} -> {tokenizer.decode(tokens)!r}")
    print(f"    {rate:.1f} tokens/s, {TOKENS * rate:.0f} tokens/s processed")

    step(4, "How each weight was split, and what was transferred")
    inspect = [sys.executable, "-m", "shardwright", "inspect", str(pef.path)]
    subprocess.run([*inspect, "--n-chips", str(args.n_chips)], check=True)

    step(5, "The same logits from 1 chip and from PyTorch")
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    ids[:, : prompt.shape[1]] = prompt
    logits = session.run({"input_ids": ids})["logits"]
    one_chip = sw.load(pef, n_chips=1).run({"input_ids": ids})["logits"]
    with torch.no_grad():
        pytorch = model(ids).logits
        expected = model.generate(prompt, max_new_tokens=args.new_tokens, do_sample=False)
        exact = model.double()(ids).logits
    # What f32 can't tell apart on this prompt is no fault: PyTorch's own error is the measure.
    against = {
        "1 chip": (difference(logits, one_chip), 1e-5),
        "PyTorch": (difference(logits, pytorch), max(1e-5, 4 * difference(pytorch, exact))),
    }
    for name, (value, limit) in against.items():
        print(f"    {args.n_chips} chips against {name}: {value:.1e} relative (limit {limit:.0e})")
    text = expected[0, prompt.shape[1] :].tolist()  # shorter where the model ends its text
    same = tokens[: len(text)] == text
    print(f"    text equal to PyTorch's: {'yes' if same else 'NO'}")
    close = all(value <= limit for value, limit in against.values())
    return 0 if same and close else 7


if __name__ == "__main__":
    sys.exit(main())
