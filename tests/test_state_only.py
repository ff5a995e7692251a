"""State-only demonstrations: the actions in them are never read."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_iq import IQLearn
from tests.utils import BOX, DICT, DISCRETE, IMAGE, SMALL, WIDE_BOX, RandomEnv, random_trajectories


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("expert_actions", ["policy", "inverse_dynamics"])
@pytest.mark.parametrize("observation_space", [BOX, DICT, IMAGE])
def test_the_experts_actions_are_never_read(action_space, expert_actions, observation_space):
    """Other actions in the demonstrations change nothing."""
    policy = "MlpPolicy" if observation_space is BOX else "MultiInputPolicy" if observation_space is DICT else "CnnPolicy"
    parameters = []
    for seed in (0, 1):
        env = RandomEnv(observation_space, action_space)
        options = dict(expert_actions=expert_actions, policy_kwargs=dict(net_arch=[8]), **SMALL)
        trajectories = random_trajectories(env)
        for trajectory, other in zip(trajectories, random_trajectories(env, seed=seed), strict=True):
            object.__setattr__(trajectory, "acts", other.acts)
        model = IQLearn(policy, env, trajectories, **options).learn(14, log_interval=None)
        parameters.append(th.cat([parameter.flatten() for parameter in model.policy.parameters()]))
        assert "train/critic_loss" in model.logger.name_to_value
        assert not any("expert_log" in key or "bc_" in key for key in model.logger.name_to_value)
    assert th.equal(*parameters)


@pytest.mark.slow
def test_inverse_dynamics_is_learned_and_saved(tmp_path):
    class Shift(RandomEnv):
        """The action is what the observation moves by."""

        def reset(self, *, seed=None, options=None):
            self.obs = super().reset(seed=seed)[0]
            return self.obs, {}

        def step(self, action):
            self.step_count += 1
            self.obs = np.clip(self.obs + 0.3 * np.resize(action, 3), -3, 3).astype(np.float32)
            return self.obs, 0.0, False, self.step_count >= 10, {}

    space, box = gym.spaces.Box(-3, 3, (3,), np.float32), gym.spaces.Box(-1, 1, (2,), np.float32)
    env = Shift(space, box)
    options = {**SMALL, "expert_actions": "inverse_dynamics", "learning_rate": 3e-3, "buffer_size": 1000, "batch_size": 64}
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **options).learn(600)
    batch = model.replay_buffer.sample(100)
    error = (model.inverse_dynamics.predict(batch.observations, batch.next_observations) - batch.actions).abs().mean()
    assert error < 0.15
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    assert th.equal(*(m.inverse_dynamics.predict(batch.observations, batch.next_observations) for m in (model, loaded)))
