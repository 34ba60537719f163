# `./dev demo`: SmolLM2-135M writes text on two chips, checked against one chip and PyTorch.
"""Compiles SmolLM2-135M for generation in weight mode, continues a prompt on several chips with
the KV cache split over them, and checks the tokens and logits."""

import argparse
import subprocess
import sys
import time

import torch

import shardwright as sw
from shardwright import huggingface, text

LENGTH = 256  # tokens of the KV cache


def step(number: int, text: str) -> None:
    print(f"\n[{number}] {text}", flush=True)


def logits_of_prompt(session: sw.Session, prompt: torch.Tensor) -> torch.Tensor:
    """Logits (vocabulary,) of the token that follows the prompt (tokens,), from the graph for
    prompts of up to 32 tokens; the rest of it is padding."""
    used = prompt.shape[0]
    ids = torch.zeros(1, 32, dtype=torch.long)
    position = torch.full((1, 32), -1)
    ids[0, :used], position[0, :used] = prompt, torch.arange(used)
    inputs = {"input_ids": ids, "position": position, "last": torch.tensor([used - 1])}
    return session.run(inputs, graph="prompt_32")["logits"][0, 0]


def difference(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, in the 2-norm."""
    return ((result - expected).norm() / expected.norm()).item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-chips", type=int, default=2)
    parser.add_argument("--prompt", default="The capital of France is")
    parser.add_argument("--new-tokens", type=int, default=32)
    args = parser.parse_args()

    step(1, "SmolLM2-135M, real weights: 30 layers, 9 heads, 3 KV heads, 134.5 M parameters")
    folder = huggingface.smollm2()
    model, tokenizer = huggingface.load(folder), huggingface.tokenizer(folder)
    prompt = tokenizer(args.prompt, return_tensors="pt").input_ids
    if prompt.shape[1] > 32 or args.new_tokens > LENGTH - 32:
        parser.error(f"give a prompt of at most 32 tokens and --new-tokens up to {LENGTH - 32}")

    step(2, f"Compile once for 1 and {args.n_chips} chips in weight mode: prompt and decode graphs")
    start = time.perf_counter()
    pef = sw.compile(
        folder,
        pef_name="smollm2",
        generate=True,
        seq=LENGTH,
        prompts=[32],
        tensor_parallel="weight",
        n_chips=sorted({1, args.n_chips}),
    )
    seconds = time.perf_counter() - start
    print(f"    {pef.path}, {pef.size_bytes / 1e6:.0f} MB, {seconds:.1f} s")

    step(3, f"Continue a prompt on {args.n_chips} chips")
    session = sw.load(pef, n_chips=args.n_chips)
    print(f"    {args.prompt}", end="", flush=True)
    tokens, stream = [], text.Stream(session.tokenizer)
    for token in session.generate(args.prompt, max_new_tokens=args.new_tokens):
        tokens.append(token)
        print(stream.add(token), end="", flush=True)
    print(stream.end())
    print(
        f"    first token after {session.stats['time_to_first_token_s'] * 1e3:.0f} ms, then ",
        end="",
    )
    print(f"{session.stats['tokens_per_s']:.1f} tokens/s")

    step(4, "How each weight was split, and what was transferred")
    inspect = [sys.executable, "-m", "shardwright", "inspect", str(pef.path)]
    subprocess.run([*inspect, "--n-chips", str(args.n_chips)], check=True)

    step(5, "The same from 1 chip and from PyTorch")
    one_chip = sw.load(pef, n_chips=1)
    alone = list(one_chip.generate(args.prompt, max_new_tokens=args.new_tokens))
    logits = logits_of_prompt(session, prompt[0])
    with torch.no_grad():
        pytorch = model(prompt).logits[0, -1]
        expected = model.generate(prompt, max_new_tokens=args.new_tokens, do_sample=False)
        exact = model.double()(prompt).logits[0, -1]
    # What f32 can't tell apart on this prompt is no fault: PyTorch's own error is the measure.
    against = {
        "1 chip": (difference(logits, logits_of_prompt(one_chip, prompt[0])), 1e-5),
        "PyTorch": (difference(logits, pytorch), max(1e-5, 4 * difference(pytorch, exact))),
    }
    for name, (value, limit) in against.items():
        print(f"    {args.n_chips} chips against {name}: {value:.1e} relative (limit {limit:.0e})")
    same = tokens == alone == expected[0, prompt.shape[1] :].tolist()
    print(f"    tokens equal to 1 chip's and PyTorch's: {'yes' if same else 'NO'}")
    close = all(value <= limit for value, limit in against.values())
    return 0 if same and close else 7


if __name__ == "__main__":
    sys.exit(main())
