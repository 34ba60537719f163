# Shared by all Python tests: --quick, the zoo as fixtures, no network, few threads.
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(2)


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out tests marked slow")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than five seconds; left out by --quick")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; left out by --quick"))
