"""Demonstrations that several models share are read once."""

import threading
import time

import pytest

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.demonstrations import expert_data
from sb3_iq.demonstrations.shared import SharedDemonstrations, read_shared

CARTPOLE = "bundled:CartPole-v1"


def model(**kwargs):
    return IQLearn("MlpPolicy", "CartPole-v1", CARTPOLE, offline=True, **kwargs)


def test_models_share_while_in_use_and_only_then(monkeypatch):
    shared, reads = SharedDemonstrations(), []
    monkeypatch.setattr(
        expert_data, "load_demonstrations", lambda *args, **kw: reads.append(args) or load_demonstrations(*args, **kw)
    )
    with shared.in_use():
        first, second = model(), model()
    with shared.in_use():  # another trial of the same study
        third = model()
    assert len(reads) == 1
    assert first.expert_content_hash == second.expert_content_hash == third.expert_content_hash
    model()
    assert len(reads) == 2
    # The generator of batches is each model's own
    assert first.expert_rng is not second.expert_rng


def test_threads_wait_for_the_first():
    shared, reads, results = SharedDemonstrations(), [], []

    def read():
        reads.append(1)
        time.sleep(0.05)
        return load_demonstrations(CARTPOLE, n_trajectories=1)

    def trial():
        with shared.in_use():
            results.append(read_shared("key", read))

    threads = [threading.Thread(target=trial) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len({id(result) for result in results}) == 1


def test_an_error_is_not_kept():
    shared = SharedDemonstrations()
    with shared.in_use():
        with pytest.raises(ValueError, match="damaged"):
            read_shared("key", lambda: (_ for _ in ()).throw(ValueError("damaged")))
        assert read_shared("key", lambda: load_demonstrations(CARTPOLE)) is not None
