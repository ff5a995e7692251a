import os

import pytest
import torch

# Nothing here may need the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks: more threads only cost time, and sums in another order change the numbers."""
    torch.set_num_threads(1)
