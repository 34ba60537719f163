# Capture: core form, the module's own results, the same bytes each time, and the models that must
# be refused.
import hashlib
import json
import subprocess
import sys
import zipfile
from collections import Counter

import pytest
import torch
import transformers
import zoo

from shardwright import ShardwrightError, capture, huggingface

# Causality alone needs no mask; these models have one, or no causal attention at all.
WITH_MASK = {"mistral": 2, "gemma3": 1}
WITHOUT_CAUSAL = {"bert", "vit", "mlp"}


def by_name(name):
    return next(entry for entry in zoo.ZOO if entry.name == name)


def operators(program):
    return Counter(
        str(node.target).removeprefix("aten.").split(".")[0]
        for node in program.graph.nodes
        if node.op == "call_function"
    )


@pytest.mark.parametrize("entry", zoo.ZOO, ids=lambda entry: entry.name)
def test_captured_program_is_core_form_and_gives_the_module_s_result(entry):
    model, inputs = entry.model(), entry.inputs()
    with torch.no_grad():
        expected = model(**inputs)[entry.output]
    program = capture.capture_forward(model, inputs)
    assert program.verifier.dialect == "ATEN"
    counts = operators(program)
    assert not {"_assert_tensor_metadata", "dropout", "contiguous", "detach", "to"} & counts.keys()
    attention = [node for node in program.graph.nodes if "scaled_dot_product" in str(node.target)]
    masked = [
        node
        for node in attention
        if len(node.args) > 3
        and node.args[3] is not None
        or node.kwargs.get("attn_mask") is not None
    ]
    assert len(attention) == (0 if entry.name == "mlp" else 2)
    assert len(masked) == WITH_MASK.get(entry.name, 0)
    assert sum(True in node.args or node.kwargs.get("is_causal", False) for node in attention) == (
        0 if entry.name in WITHOUT_CAUSAL else 2 - len(masked)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(**inputs)[entry.output], expected, rtol=1e-5, atol=1e-5
        )


def test_inputs_outputs_and_parameters_keep_the_user_s_names():
    entry = by_name("llama_9_3")
    model = entry.model()
    program = capture.capture_forward(model, entry.inputs())
    signature = program.graph_signature
    assert signature.user_inputs == ("input_ids",) and signature.user_outputs == ("logits",)
    assert set(signature.inputs_to_parameters.values()) <= {
        name for name, _ in model.named_parameters(remove_duplicate=False)
    }
    assert "forward" not in vars(model) and model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "outputs, names",
    [
        (lambda x: x + 1, ("output_0",)),
        (lambda x: (x + 1, x * 2), ("output_0", "output_1")),
        (lambda x: {"a": x + 1, "b": {"c": x * 2}}, ("a", "b_c")),
    ],
)
def test_output_names(outputs, names):
    class Module(torch.nn.Module):
        def forward(self, x):
            return outputs(x)

    assert capture.capture_forward(Module(), torch.ones(3)).graph_signature.user_outputs == names


def test_patch_embedding_stays_a_convolution():
    entry = by_name("vit")
    assert operators(capture.capture_forward(entry.model(), entry.inputs()))["conv2d"] == 1


def test_padding_mask_is_not_lost():
    entry = by_name("llama_6_2")
    model, inputs = entry.model(), entry.inputs()
    inputs["attention_mask"] = torch.ones(zoo.BATCH, zoo.SEQ, dtype=torch.long)
    program = capture.capture_forward(model, inputs)
    inputs["attention_mask"][0, :5] = 0
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(**inputs)["logits"], model(**inputs).logits, rtol=1e-5, atol=1e-5
        )


def test_training_mode_is_restored():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout())
    module[1].eval()
    assert "native_dropout" not in operators(capture.capture_forward(module, torch.ones(2, 3)))
    assert module.training and module[0].training and not module[1].training


# --- files --------------------------------------------------------------------------------------

SAVE_IN_ANOTHER_PROCESS = """
import sys
zoo_folder, folder, *names = sys.argv[1:]
sys.path.insert(0, zoo_folder)
import zoo
from shardwright import capture
for entry in zoo.ZOO:
    if entry.name in names:
        program = capture.capture_forward(entry.model(), entry.inputs())
        capture.save(program, f"{folder}/{entry.name}/model.pt2")
"""


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_saving_twice_gives_the_same_bytes_in_another_process_too(tmp_path):
    names = ["llama_9_3", "mistral", "vit"]
    folders = [tmp_path / folder for folder in "abc"]
    for folder in folders[:2]:
        for name in names:
            entry = by_name(name)
            program = capture.capture_forward(entry.model(), entry.inputs())
            capture.save(program, folder / name / "model.pt2")
    subprocess.run(
        [
            sys.executable,
            "-c",
            SAVE_IN_ANOTHER_PROCESS,
            zoo.__file__.rsplit("/", 1)[0],
            folders[2],
            *names,
        ],
        check=True,
    )
    for name in names:
        assert len({sha256(folder / name / "model.pt2") for folder in folders}) == 1, name
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_file_holds_no_absolute_path_and_no_inputs(tmp_path):
    entry = by_name("llama_6_2")
    path = capture.save(
        capture.capture_forward(entry.model(), entry.inputs()), tmp_path / "model.pt2"
    )
    with zipfile.ZipFile(path) as archive:
        text = archive.read("model/models/model.json").decode()
        assert archive.getinfo("model/data/sample_inputs/model.pt").file_size == 0
    nodes = json.loads(text)["graph_module"]["graph"]["nodes"]
    traces = [
        node["metadata"]["stack_trace"] for node in nodes if "stack_trace" in node["metadata"]
    ]
    assert len(traces) > 100 and not any('"/' in trace or "\n" in trace for trace in traces)


def test_wrong_file_name():
    with pytest.raises(
        ShardwrightError, match=r"'model.zip' must end in .pt2, for example 'model.pt2'"
    ):
        capture.save({}, "model.zip")


# --- precision ----------------------------------------------------------------------------------


def test_bf16_keeps_inverse_frequencies_in_f32():
    model = capture.cast(by_name("llama_6_2").model(), torch.bfloat16)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    program = capture.capture_forward(model, zoo.tokens())
    assert operators(program)["_to_copy"] == 13  # two a norm, and rope's


def test_unknown_precision():
    with pytest.raises(
        ShardwrightError, match="precision 'f8' can't be captured; give f32 or bf16"
    ):
        capture.dtype_of("f8")


# --- what must be refused -----------------------------------------------------------------------


def gemma2(**options):
    return zoo.decoder("Gemma2", 4, 2, query_pre_attn_scalar=8, **options)()


def test_soft_cap_is_refused():
    with pytest.raises(
        ShardwrightError, match='Gemma2Attention uses softcap.*attn_implementation="eager"'
    ) as raised:
        capture.capture_forward(gemma2(), zoo.tokens())
    assert raised.value.code == 3


def test_soft_cap_works_with_eager_attention():
    model, inputs = gemma2(attn_implementation="eager").eval(), zoo.tokens()
    program = capture.capture_forward(model, inputs)
    assert (
        operators(program)["tanh"] == 3 and operators(program)["scaled_dot_product_attention"] == 0
    )
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(**inputs)["logits"], model(**inputs).logits, rtol=1e-5, atol=1e-5
        )


def test_positions_without_mask_are_refused():
    with pytest.raises(ShardwrightError, match="may mean packed sequences"):
        capture.capture_forward(
            by_name("llama_6_2").model(),
            {**zoo.tokens(), "position_ids": torch.arange(zoo.SEQ)[None].expand(zoo.BATCH, -1)},
        )


# --- generation ---------------------------------------------------------------------------------


def test_programs_with_a_cache_equal_the_model_without():
    model, length = by_name("mistral").model(), 24
    programs = huggingface.capture_generate(model, batch=2, length=length, prompts=[6])
    assert not [name for name, _ in model.named_buffers() if name.startswith(("k0", "v0"))]
    modules = {name: program.module() for name, program in programs.items()}
    ids = zoo.tokens(2, length)["input_ids"]
    used = [4, 6]  # of the first row's prompt two tokens are padding
    position = torch.tensor([[0, 1, 2, 3, -1, -1], [0, 1, 2, 3, 4, 5]])
    with torch.no_grad():
        want = model(ids).logits
        got = modules["prompt_6"](
            input_ids=ids[:, :6], position=position, last=torch.tensor(used) - 1
        )["logits"]
        for row in range(2):
            torch.testing.assert_close(got[row, 0], want[row, used[row] - 1], rtol=1e-4, atol=1e-5)
        for name, buffer in modules["prompt_6"].named_buffers():
            if name.startswith(("k", "v")):
                modules["decode"].get_buffer(name).copy_(buffer)
        for step in range(length - 6):
            at = torch.tensor(used) + step
            got = modules["decode"](
                input_ids=ids[torch.arange(2), at][:, None], position=at[:, None]
            )["logits"]
            for row in range(2):
                torch.testing.assert_close(got[row, 0], want[row, at[row]], rtol=1e-4, atol=1e-5)


def test_programs_share_weights_and_caches_take_no_room_in_the_file(tmp_path):
    model = by_name("llama_9_3").model()
    path = capture.save(huggingface.capture_generate(model, 1, 32, [4, 8]), tmp_path / "g.pt2")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        config = json.loads(archive.read("g/data/constants/decode_constants_config.json"))["config"]
        record = archive.getinfo(f"g/data/constants/{config['k0']['path_name']}")
        sizes = [
            entry.file_size
            for entry in archive.infolist()
            if entry.filename.startswith("g/data/weights/") and "config" not in entry.filename
        ]
    assert {"g/models/decode.json", "g/models/prompt_4.json", "g/models/prompt_8.json"} <= names
    assert record.file_size == 4 and config["k0"]["tensor_meta"]["strides"] == [{"as_int": 0}] * 4
    weights = sum(p.numel() * 4 for p in model.parameters())  # the head is the embedding
    assert weights <= sum(sizes) < 1.1 * weights


def test_lengths_of_prompt_programs():
    assert huggingface.prompt_lengths(20) == [20]
    assert huggingface.prompt_lengths(32) == [32]
    assert huggingface.prompt_lengths(600) == [32, 128, 512, 600]
    assert huggingface.prompt_lengths(2048) == [32, 128, 512, 2048]
    assert huggingface.prompt_lengths(8192) == [32, 128, 512, 2048]


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def llama_folder(tmp_path):
    by_name("llama_9_3").model().save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def test_folder_is_captured_from_the_command_line(llama_folder, tmp_path):
    output = tmp_path / "out.pt2"
    assert capture.main([str(llama_folder), "-o", str(output), "--seq", "16", "--batch", "2"]) == 0
    program, inputs = torch.export.load(output), zoo.tokens()
    model = by_name("llama_9_3").model()
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**inputs)["logits"], model(**inputs).logits)


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda folder: folder.joinpath("config.json").unlink(), "has weights but no config.json"),
        (lambda folder: folder.joinpath("config.json").write_text("{"), "config.json' is not JSON"),
        (
            lambda folder: folder.joinpath("config.json").write_text(
                '{"architectures": ["Nothing"]}'
            ),
            r"\['Nothing'\]",
        ),
        (
            lambda folder: folder.joinpath("model.safetensors").unlink(),
            "no safetensors file and 0 GGUF files",
        ),
    ],
)
def test_broken_folder(llama_folder, break_it, message, capsys):
    break_it(llama_folder)
    assert capture.main([str(llama_folder), "-o", "out.pt2"]) in (3, 5)
    assert message.replace("\\", "") in capsys.readouterr().err


def test_missing_folder(capsys):
    assert capture.main(["nowhere", "-o", "out.pt2"]) == 5
    assert "'nowhere' is no folder; give a folder with config.json" in capsys.readouterr().err


def test_too_long_sequence(llama_folder, capsys):
    assert capture.main([str(llama_folder), "-o", "out.pt2", "--seq", "65"]) == 2
    assert (
        "--seq 65 is more than the 64 positions of the model; --seq 64 works"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_smollm2_continues_a_prompt_as_known():
    folder = huggingface.smollm2()
    model, tokenizer = huggingface.load(folder), huggingface.tokenizer(folder)
    assert (
        isinstance(model, transformers.LlamaForCausalLM)
        and sum(p.numel() for p in model.parameters()) == 134515008
    )
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0])
    assert text.startswith("The capital of France is Paris.\n\nThe answer is: 20")
