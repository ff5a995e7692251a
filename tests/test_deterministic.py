"""The same seed gives the same run."""

import pytest
import torch as th

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, RandomEnv, make_model, parameters, random_trajectories


@pytest.mark.slow
def test_same_seed_same_run():
    def run(offline):
        model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=offline, **{**SMALL, "seed": 3}).learn(60)
        return parameters(model)

    for offline in (False, True):
        assert th.equal(run(offline), run(offline))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_action_spaces(action_space, offline):
    runs = [
        parameters(make_model("MlpPolicy", BOX, action_space, offline=offline, ent_coef="auto").learn(30)) for _ in range(2)
    ]
    assert th.equal(*runs)


def test_seed_controls_the_expert_batches(tmp_path):
    first, second = (make_model("MlpPolicy", BOX, DISCRETE, offline=True, seed=None) for _ in range(2))
    second.set_parameters(first.get_parameters())
    for model in (first, second):
        model.set_random_seed(3)
        model.learn(10)
    assert th.equal(parameters(first), parameters(second))
    first.save(tmp_path / "model")
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    results = []
    for seed in (5, 6):
        loaded = IQLearn.load(tmp_path / "model", expert_data=trajectories)
        loaded.set_random_seed(seed)
        results.append(parameters(loaded.learn(10, reset_num_timesteps=False)))
    assert not th.equal(*results)
