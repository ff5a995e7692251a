import os

import hypothesis
import pytest
import torch

# Nothing here may need the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

# The same examples in every run; no deadline, as the machine may be busy
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks: more threads only cost time, and sums in another order change the numbers."""
    torch.set_num_threads(1)
