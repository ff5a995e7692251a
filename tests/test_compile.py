"""``compile=True`` computes what it does without, and leaves no trace in a saved model."""

import copy
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

pytestmark = pytest.mark.slow

SMALL = dict(batch_size=16, buffer_size=200, seed=0, device="cpu")
COMPILER = os.environ.get("CXX", "g++")

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"torch.compile needs a C++ compiler ({COMPILER})")


def make(action_space, offline, vec_normalize=False, **kwargs):
    """A model with transitions in its replay buffer, ready to learn."""
    env = RandomEnv(BOX, action_space)
    trajectories = random_trajectories(env)
    if vec_normalize:
        env = VecNormalize(DummyVecEnv([lambda: RandomEnv(BOX, action_space)]))
    kwargs["policy_kwargs"] = dict(net_arch=[8])
    model = IQLearn("MlpPolicy", env, trajectories, offline=offline, **SMALL, **kwargs)
    model.set_logger(configure(None, []))
    if not offline:
        model.replay_buffer = model._make_replay_buffer(model.buffer_size)
        rng = np.random.default_rng(0)
        for step in range(50):
            obs, next_obs = rng.uniform(-1, 1, (2, 1, 3)).astype(np.float32)
            action = rng.uniform(-1, 1, (1, 2)) if action_space is WIDE_BOX else rng.integers(3, size=(1, 1))
            model.replay_buffer.add(obs, next_obs, action, np.ones(1), np.array([step % 10 == 9]), [{}])
    model._setup_learn(0)
    return model


def learn(model, n_steps):
    """:return: what is logged of each gradient step, shape (n_steps, n_terms)"""
    model.set_random_seed(0)
    logged = []
    for _ in range(n_steps):
        model.train(1, model.batch_size)
        model._record_means()
        logged.append(list(model.logger.name_to_value.values()))
    return np.array(logged)


@needs_compiler
@pytest.mark.parametrize(
    "action_space, offline, vec_normalize",
    [(DISCRETE, True, False), (DISCRETE, False, False), (WIDE_BOX, False, False), (WIDE_BOX, False, True)],
)
def test_equal_to_eager(action_space, offline, vec_normalize):
    """Also with a prior, whose rewards are stored or, with VecNormalize, computed for each batch."""
    eager, compiled = (make(action_space, offline, vec_normalize, compile=compile) for compile in (False, True))
    assert (eager.prior is None) == offline
    assert offline or (eager.sampler.stored_prior is None) == vec_normalize
    assert learn(compiled, 50) == pytest.approx(learn(eager, 50), rel=1e-5, abs=1e-5)
    for mine, other in zip(compiled.policy.parameters(), eager.policy.parameters(), strict=True):
        assert th.allclose(mine, other, atol=1e-5)


@needs_compiler
def test_save_load_copy_and_other_batch_sizes(tmp_path):
    model = make(DISCRETE, True, compile=True).learn(3)
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert not any(b"_orig_mod" in archive.read(name) for name in archive.namelist())
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    loaded = IQLearn.load(tmp_path / "model", expert_data=trajectories)
    assert loaded.compile
    assert IQLearn.load(tmp_path / "model", compile=False).compile is False
    copied = copy.deepcopy(model.policy)
    loaded.batch_size = 20
    loaded.learn(3)
    loaded.set_parameters(model.get_parameters())
    for policy in (loaded.policy, copied):
        assert all(th.equal(a, b) for a, b in zip(policy.parameters(), model.policy.parameters(), strict=True))


def test_without_a_compiler(tmp_path, monkeypatch):
    model = make(DISCRETE, True, compile=False)
    model.compile = True
    model.save(tmp_path / "model")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"`compile` is True, and there is no C\+\+ compiler \(no-such-compiler\)"):
        make(DISCRETE, True, compile=True)
    loaded = IQLearn.load(tmp_path / "model", expert_data=random_trajectories(RandomEnv(BOX, DISCRETE)))
    loaded.predict(BOX.sample())
    with pytest.raises(ValueError, match="use compile=False"):
        loaded.learn(2)
    loaded.compile = False
    loaded.learn(2)
