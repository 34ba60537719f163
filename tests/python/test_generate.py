# Generation with a KV cache: the tokens of PyTorch at every n, whatever way the prompts take.
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from program import error, run
from zoo import ZOO

import shardwright as sw
from shardwright import ShardwrightError, capture, huggingface

LENGTH, NEW = 64, 32
MODELS = [
    "llama_9_3",
    "llama_5_1",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma3",
    "phi3",
    "olmo2",
    "gpt2",
    "gpt_neox",
]
# Three sequences side by side; the longest takes pieces.
PROMPTS = [[5], [7, 3, 11, 2, 60, 5, 8, 9, 31, 4, 17], [(5 * i * i + 3) % 97 for i in range(21)]]


def by_name(name: str):
    return next(entry for entry in ZOO if entry.name == name)


def captured(model, folder, *, batch=3, prompts=(8, 16)):
    programs = huggingface.capture_generate(model, batch, LENGTH, prompts)
    return capture.save(programs, folder / f"{'_'.join(map(str, prompts))}.pt2")


def compiled(model, folder, *, batch=3, prompts=(8, 16), **options):
    path = captured(model, folder, batch=batch, prompts=prompts)
    return sw.compile(path, generate=True, output_folder=folder, **options)


def greedy(model, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Tokens by transformers' `generate`, and how far the likeliest was ahead of the next by
    PyTorch without any cache, to which each must be the likeliest, too."""
    model.generation_config.eos_token_id = None
    ids = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    with torch.no_grad():
        top = model(ids[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :].topk(2)
    gaps = (top.values[:, 0] - top.values[:, 1]).tolist()
    tokens = ids[0, len(prompt) :].tolist()
    check_same(tokens, (top.indices[:, 0].tolist(), gaps), f"transformers for {prompt}")
    return tokens, gaps


def check_same(got: list[int], want: tuple[list[int], list[float]], what: str, near=1e-4) -> None:
    """Equal up to the first near-tie."""
    tokens, gaps = want
    assert len(got) == len(tokens), what
    for i, (mine, theirs) in enumerate(zip(got, tokens)):
        if mine != theirs:
            assert gaps[i] < near, f"{what}: token {i} is {mine}, not {theirs}; gap {gaps[i]}"
            return


def continued(session, prompts, count=NEW, **options) -> list[list[int]]:
    rows = [[] for _ in prompts]
    for row, token in session.generate(prompts, max_new_tokens=count, stop_tokens=[], **options):
        rows[row].append(token)
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch_without_a_cache_and_transformers_with_one(name, tmp_path):
    model = by_name(name).model()
    want = [greedy(model, prompt, NEW) for prompt in PROMPTS]
    path = captured(model, tmp_path)
    for mode, chips in (("weight", [1, 2, 3, 4, 5, 8]), ("batch", [2, 3])):
        options = {"tensor_parallel": mode, "n_chips": chips, "pef_name": mode}
        pef = sw.compile(path, generate=True, output_folder=tmp_path, **options)
        for n in chips:
            got = continued(sw.load(pef, n_chips=n), PROMPTS)
            for row, tokens in enumerate(got):
                check_same(tokens, want[row], f"{mode}, {n} chips, prompt {row}")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    model = by_name("llama_9_3").model()
    folder = tmp_path_factory.mktemp("llama")
    return model, compiled(model, folder, tensor_parallel="weight", n_chips=[1, 2], pef_name="g")


def token_by_token(session, prompt: list[int], count: int) -> list[int]:
    """The prompt goes through the decode graph, too, one token a run."""
    tokens = list(prompt)
    for place in range(len(prompt) + count - 1):
        inputs = {"input_ids": [[tokens[place]]], "position": [[place]]}
        logits = session.run({k: np.array(v) for k, v in inputs.items()}, "decode")["logits"]
        if place + 1 >= len(prompt):
            tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


# The windows of mistral and gemma3 are shorter than the prompt; gpt2 adds positions, has no rope.
@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama_9_3", "gpt2"])
def test_one_piece_many_pieces_or_token_by_token(name, tmp_path):
    model = by_name(name).model()
    want = greedy(model, PROMPTS[2], NEW)
    programs = huggingface.capture_generate(model, 1, LENGTH, (2, 8, 32))
    for pieces in (32, 8, 2):
        two = {name: programs[name] for name in ("decode", f"prompt_{pieces}")}
        path = capture.save(two, tmp_path / f"{pieces}.pt2")
        pef = sw.compile(path, generate=True, output_folder=tmp_path)
        tokens = list(sw.load(pef).generate(PROMPTS[2], max_new_tokens=NEW, stop_tokens=[]))
        check_same(tokens, want, f"pieces of {pieces}")
    check_same(token_by_token(sw.load(pef), PROMPTS[2], NEW), want, "token by token")


def test_the_cache_is_split_and_takes_no_room_in_the_file(llama, tmp_path):
    session = sw.load(llama[1], n_chips=2)
    whole = 2 * 2 * len(PROMPTS) * 3 * LENGTH * 8 * 4  # k and v of 2 layers
    one_row = compiled(llama[0], tmp_path, batch=1, tensor_parallel="weight", n_chips=[1, 2])
    assert abs(llama[1].size_bytes - one_row.size_bytes) < whole / 8
    weights = sum(p.numel() for p in llama[0].parameters()) * 4
    for chip in session.info["memory"]:
        # 2 of 3 KV heads a chip; weights in panels of 32 columns
        assert chip["parameters"] < 2 * whole / 3 + weights


def test_a_sequence_starts_while_others_are_under_way(llama):
    model, pef = llama
    generator = sw.load(pef, n_chips=2).new_generator()
    rows: dict[int, list[int]] = {slot: [] for slot in range(3)}
    for step in range(40):
        if step in (0, 3, 5):
            slot = {0: 2, 3: 0, 5: 1}[step]
            generator.start(slot, PROMPTS[slot], "{}")
        for slot, token, _ in generator.step():
            rows[slot].append(token)
            if len(rows[slot]) == NEW:
                generator.stop(slot)
    for slot, tokens in rows.items():
        check_same(tokens, greedy(model, PROMPTS[slot], NEW), f"slot {slot}")
    # The slot is free again, and nothing is left of what was there.
    generator.start(1, PROMPTS[0], "{}")
    assert generator.step()[0][:2] == (1, greedy(model, PROMPTS[0], 1)[0][0])


def test_a_full_cache_ends_the_text(llama):
    session = sw.load(llama[1])
    tokens = list(session.generate(PROMPTS[2], stop_tokens=[]))
    assert len(tokens) == LENGTH - len(PROMPTS[2]) + 1, "the last token is not in the cache"
    whole = [1] * LENGTH
    assert len(list(session.generate(whole, stop_tokens=[]))) == 1


def test_stop_tokens_end_a_text_and_are_given(llama):
    session = sw.load(llama[1])
    tokens = continued(session, [PROMPTS[1]])[0]
    stop = tokens[5]
    got = list(session.generate(PROMPTS[1], max_new_tokens=NEW, stop_tokens=[stop]))
    assert got == tokens[: tokens.index(stop) + 1]


def test_sampling(llama):
    session = sw.load(llama[1])
    hot = {"temperature": 3.0, "seed": 5}
    once = continued(session, PROMPTS, **hot)
    assert once == continued(session, PROMPTS, **hot)
    assert once != continued(session, PROMPTS, temperature=3.0, seed=6)
    cold = continued(session, PROMPTS)
    assert once != cold
    assert continued(session, PROMPTS, top_k=1, **hot) == cold
    assert continued(session, PROMPTS, top_p=1e-9, **hot) == cold


def test_repetition_penalty_is_that_of_transformers(llama):
    model, pef = llama
    want = model.generate(
        torch.tensor([PROMPTS[1]]),
        max_new_tokens=NEW,
        do_sample=False,
        repetition_penalty=1.7,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(PROMPTS[1]) :]
    got = continued(sw.load(pef), [PROMPTS[1]], repetition_penalty=1.7)[0]
    assert got == want.tolist()


@pytest.mark.parametrize(
    "prompts, options, message",
    [
        ([], {}, "there is no prompt; give text, or at least one token"),
        ([[]], {}, "the prompt has no tokens; give at least one"),
        ([1] * 65, {}, "the prompt has 65 tokens, but the KV cache holds 64"),
        ([[1]] * 4, {}, "4 prompts, but the PEF was compiled for 3 side by side"),
        ([97], {}, "token 97 is outside the vocabulary of 97"),
        ([1.5], {}, "a prompt is text or token ids"),
        ("text", {}, "this PEF holds no tokenizer"),
        ([1], {"temperature": -1}, "--temperature -1: give 0"),
        ([1], {"top_p": 0}, "--top-p 0: give more than 0"),
        ([1], {"top_k": -2}, "--top-k -2: give 0"),
        ([1], {"repetition_penalty": 0}, "--repetition-penalty 0: give more than 0"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens=0: give 1 or more"),
    ],
)
def test_mistakes(llama, prompts, options, message):
    with pytest.raises(ShardwrightError, match=message):
        sw.load(llama[1]).generate(prompts, **options)


def test_a_pef_without_generation_says_how_to_get_it(tmp_path):
    path = capture.save(
        capture.capture_forward(by_name("mlp").model(), by_name("mlp").inputs()), tmp_path / "m.pt2"
    )
    with pytest.raises(ShardwrightError, match="graphs have no KV cache; capture the model with"):
        sw.compile(path, generate=True, output_folder=tmp_path)
    pef = sw.compile(path, inference=True, output_folder=tmp_path)
    with pytest.raises(ShardwrightError, match="was not compiled for generation.*--generate"):
        sw.load(pef).generate([1])


def test_models_that_cannot_be_generated_from_say_why(tmp_path):
    with pytest.raises(ShardwrightError, match="--seq 65 is more than the 64 positions"):
        huggingface.capture_generate(by_name("llama_9_3").model(), 1, 65)
    with pytest.raises(ShardwrightError, match="each must be at least 2 and at most --seq 64"):
        huggingface.capture_generate(by_name("llama_9_3").model(), 1, 64, [1, 8])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of a tiny Llama whose tokenizer has the bytes as tokens."""
    import tokenizers
    import transformers

    path = tmp_path_factory.mktemp("model")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {"<end>": 0} | {c: i + 1 for i, c in enumerate(sorted(alphabet))}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=257,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_the_command_line_writes_what_pytorch_does(folder, tmp_path):
    import transformers

    compiling = run(
        *("compile", folder, "--generate", "--seq", 96, "-b", 2, "--prompts", "16,32"),
        *("--tensor-parallel", "weight", "--n-chips", "1,3", "--output-folder", tmp_path),
        *("--pef-name", "tiny"),
    )
    assert compiling.returncode == 0, compiling.stderr
    pef = tmp_path / "tiny" / "tiny.pef"
    model = huggingface.load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Häuser?"}], add_generation_prompt=True, tokenize=False
    )
    want = {}
    for text in ("Häuser", chat):
        ids = tokenizer(text, return_tensors="pt").input_ids
        tokens = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)
        answer = tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)
        want[text] = answer.replace("\r", "\n")  # as subprocess reads it
    for n in (1, 3):
        options = ("--n-chips", n, "--max-new-tokens", 20)
        done = run("-q", "generate", pef, "--prompt", "Häuser", *options, "--stats")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(want["Häuser"] + "\n\nfirst token after ")
        assert " GB/s, " in done.stdout and " % of a decode run" in done.stdout
        done = run("-q", "generate", pef, "--chat", "--prompt", "Häuser?", *options)
        assert done.stdout == want[chat] + "\n"
    both = ("--prompt", "Häuser", "--prompt-tokens", "7,8")
    done = run("-q", "generate", pef, *both, "--max-new-tokens", 20, "--json")
    answers = json.loads(done.stdout)["answers"]
    assert answers[0]["text"].replace("\r", "\n") == want["Häuser"] and len(answers) == 2
    assert set(answers[1]) == {"prompt_tokens", "tokens", "text", "ended"}


def test_a_prompt_that_is_no_utf8(folder, tmp_path):
    options = {"generate": True, "seq": 32, "prompts": [16], "output_folder": tmp_path}
    pef = sw.compile(folder, pef_name="bytes", **options)
    done = subprocess.run(
        [sys.executable, "-m", "shardwright", "generate", pef.path, "--prompt", b"a\xffb"],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_mistakes_of_the_command_line(llama):
    pef = llama[1].path
    assert error("generate", pef) == (
        2,
        "error: there is no prompt: give --prompt TEXT, or --prompt-tokens 1,2,3",
    )
    assert error("generate", pef, "--prompt", "Hi") == (
        2,
        "error: this PEF holds no tokenizer: give token numbers, or compile a Hugging Face folder "
        "that has one",
    )
    assert error("generate", pef, "--prompt-tokens", "1,x") == (
        2,
        "error: --prompt-tokens 1,x: give token numbers, as in 504,3575,282",
    )
    four = ["--prompt-tokens", "1"] * 4
    assert error("generate", pef, *four) == (
        2,
        "error: 4 prompts, but this PEF was compiled for 3 side by side; give fewer, or compile "
        "with -b 4",
    )
    long = ",".join(["1"] * 65)
    assert error("generate", pef, "--prompt-tokens", long) == (
        2,
        "error: the prompt has 65 tokens, but the KV cache holds 64: give a shorter one, or "
        "compile with a larger --seq",
    )
    done = run("generate", pef, "--prompt-tokens", "1")
    assert done.returncode == 0
    assert done.stderr.endswith(
        "warning: the text ends because the KV cache of 64 tokens is full; compile with a larger "
        "--seq for more\n"
    )


def test_the_text_of_half_a_character_is_kept_back():
    from shardwright.text import Stream

    class Bytes:
        def decode(self, tokens):
            return bytes(tokens).decode(errors="replace")

    stream = Stream(Bytes())
    assert [stream.add(byte) for byte in "aé€".encode()] == ["a", "", "é", "", "", "€"]
    assert stream.add(0xE2) == "" and stream.end() == "\ufffd"


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    model = by_name("llama_6_2").model()
    files = [
        compiled(
            model, tmp_path / str(i), batch=1, prompts=(8,), tensor_parallel="weight", n_chips=3
        )
        for i in range(2)
    ]
    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    assert files[0].graphs == ("decode", "prompt_8")
