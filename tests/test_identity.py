"""Every kind of policy learns to do what it sees: thresholds with a margin, fixed seeds."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.iq_learn import reward_priors

pytestmark = pytest.mark.slow

N_STEPS = 20
OBSERVATIONS: dict[str, spaces.Space] = {
    "MlpPolicy": spaces.Box(-2.0, 2.0, (2,), np.float32),
    "CnnPolicy": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "MultiInputPolicy": spaces.Dict(row=spaces.Discrete(2), column=spaces.Box(-2.0, 2.0, (1,), np.float32)),
}


class Identity(gym.Env):
    """
    One of four corners is shown at each step: as a vector, as a bright quarter of an image, or by a row and a column. It is
    the action that is right, its number or its coordinates of half a unit.

    :param policy: which observations there are, by the policy that is for them
    :param continuous: whether actions are coordinates
    """

    def __init__(self, policy, continuous):
        self.policy, self.observation_space = policy, OBSERVATIONS[policy]
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32) if continuous else spaces.Discrete(4)

    @property
    def right_action(self):
        if isinstance(self.action_space, spaces.Discrete):
            return self.corner
        return np.array([self.corner // 2, self.corner % 2], np.float32) - 0.5

    def _observe(self):
        self.corner = int(self.np_random.integers(4))
        row, column = divmod(self.corner, 2)
        noise = self.np_random.uniform(-0.2, 0.2, size=2).astype(np.float32)
        if self.policy == "MlpPolicy":
            return np.array([2 * row - 1, 2 * column - 1], np.float32) + noise
        if self.policy == "MultiInputPolicy":
            return {"row": row, "column": 2 * column - 1 + noise[:1]}
        image = self.np_random.integers(60, size=(36, 36, 1), dtype=np.uint8)
        image[18 * row : 18 * row + 18, 18 * column : 18 * column + 18] += 150
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self._observe(), {}

    def step(self, action):
        reward = -float(np.abs(action - self.right_action).mean() > 0.25)
        self.step_count += 1
        return self._observe(), reward, False, self.step_count >= N_STEPS, {}


def roll_out(env, n_episodes, act):
    """:return: the mean reward of a policy and what it did"""
    columns, rewards = {"obs": [], "acts": [], "terminal": []}, []
    for seed in range(n_episodes):
        observations, actions, ends = [env.reset(seed=seed)[0]], [], False
        while not ends:
            actions.append(act(observations[-1]))
            obs, reward, _, ends, _ = env.step(actions[-1])
            observations.append(obs)
            rewards.append(reward)
        if isinstance(env.observation_space, spaces.Dict):
            columns["obs"].append({key: np.stack([obs[key] for obs in observations]) for key in observations[0]})
        else:
            columns["obs"].append(np.stack(observations))
        columns["acts"].append(np.stack(actions))
        columns["terminal"].append(False)
    return np.mean(rewards), columns


@pytest.mark.parametrize("policy", OBSERVATIONS)
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("offline", [False, True])
def test_identity(policy, continuous, offline, monkeypatch):
    monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 150)
    env = Identity(policy, continuous)
    score, columns = roll_out(env, 8, lambda obs: env.right_action)
    assert score == 0
    options = dict(policy_kwargs=dict(net_arch=[32]), batch_size=32, learning_starts=50, buffer_size=1000, gamma=0.9)
    if policy == "CnnPolicy":
        options["policy_kwargs"] = dict(net_arch=[32], features_extractor_kwargs=dict(features_dim=32))
    model = IQLearn(
        policy,
        env,
        load_demonstrations(columns),
        offline=offline,
        seed=0,
        device="cpu",
        learning_rate=1e-3,
        actor_learning_rate=1e-3,
        **options,
    )
    model.learn(150 if offline else 350)
    score, _ = roll_out(Identity(policy, continuous), 10, lambda obs: model.predict(obs, deterministic=True)[0])
    # Always the same action is right at a quarter of the steps
    assert score > -0.1
