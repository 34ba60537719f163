# Shared by all Python tests: --quick, the zoo as fixtures, no network, few threads.
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from zoo import ZOO

torch.set_num_threads(2)


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out slow tests and most models")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than five seconds; left out by --quick")


# Of the tests that every model of the zoo goes through, --quick runs these.
QUICK_MODELS = {"mlp", "llama_9_3"}


def is_slow(item) -> bool:
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = {value if isinstance(value, str) else getattr(value, "name", None) for value in given}
    models = {entry.name for entry in ZOO} & names
    return "slow" in item.keywords or bool(models - QUICK_MODELS)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        for item in items:
            if is_slow(item):
                item.add_marker(pytest.mark.skip(reason="slow; left out by --quick"))
