"""LearnedRewardVecEnv: rewards by hand at terminations, time limits and automatic resets."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv
from tests.utils import BOX, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, seed=0, device="cpu", offline=True)
DICT = spaces.Dict({"a": BOX, "b": spaces.Box(-1.0, 1.0, (2,), np.float32)})


class Walk(gym.Env):
    """
    Walks through the observations (i, start, 0.1 * i), each start higher than the last, rewards 10 + i.

    :param length: number of steps until the end
    :param truncates: whether the end is a time limit
    :param named: whether observations are a dictionary
    """

    def __init__(self, length=3, truncates=False, named=False, action_space=DISCRETE):
        box = spaces.Box(-100.0, 100.0, (3,), np.float32)
        self.observation_space = spaces.Dict({"x": box, "y": box}) if named else box
        self.action_space, self.length, self.truncates, self.named = action_space, length, truncates, named
        self.start = 0.0

    def observe(self):
        obs = np.array([self.i, self.start, 0.1 * self.i], np.float32)
        return {"x": obs, "y": -obs} if self.named else obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.i, self.start = 0, self.start + 1.0
        return self.observe(), {}

    def step(self, action):
        self.i += 1
        over = self.i == self.length
        return self.observe(), 10.0 + self.i, over and not self.truncates, over and self.truncates, {}


def make_reward(named=False, action_space=DISCRETE, terminal_v=None, **kwargs):
    env = Walk(named=named, action_space=action_space)
    policy = "MultiInputPolicy" if named else "MlpPolicy"
    model = IQLearn(policy, env, random_trajectories(env), **SMALL).learn(20)
    model.terminal_v = terminal_v
    return LearnedReward(model, **kwargs)


def rows(obs, index):
    return {key: values[index] for key, values in obs.items()} if isinstance(obs, dict) else obs[index]


def stack(observations):
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


def by_hand(reward, env, n_steps, gamma, actions, terminal_reward="absorbing"):
    """The rewards of one environment, stepped and reset by hand."""
    obs, _ = env.reset()
    rewards = []
    for action in actions[:n_steps]:
        next_obs, _, terminated, truncated, _ = env.step(action)
        r = reward(stack([obs]), action[None], stack([next_obs]), np.array([terminated]))[0]
        if terminated and terminal_reward == "absorbing":
            q = reward.predict_q(stack([obs]), action[None])[0]
            r = r + gamma / (1 - gamma) * (1 - reward.gamma) * q
        rewards.append(r)
        obs = env.reset()[0] if terminated or truncated else next_obs
    return np.array(rewards)


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("terminal_reward", ["absorbing", "once"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_rewards_by_hand(truncates, named, terminal_reward, action_space):
    reward = make_reward(named, action_space)
    lengths, gamma = (3, 4, 1), 0.9
    makers = [lambda length=length: Walk(length, truncates, named, action_space) for length in lengths]
    venv = LearnedRewardVecEnv(DummyVecEnv(makers), reward, gamma, terminal_reward)
    rng = np.random.default_rng(0)
    actions = np.stack([[np.asarray(action_space.sample()) for _ in lengths] for _ in range(9)])
    if action_space == DISCRETE:
        actions = rng.integers(3, size=(9, 3))
    venv.reset()
    steps = [venv.step(action) for action in actions]
    for index, maker in enumerate(makers):
        expected = by_hand(reward, maker(), 9, gamma, actions[:, index], terminal_reward)
        assert [rewards[index] for _, rewards, _, _ in steps] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        true = [info[index]["original_reward"] for _, _, _, info in steps]
        assert true == [10.0 + i % lengths[index] + 1 for i in range(9)]
        assert [dones[index] for _, _, dones, _ in steps] == [(i + 1) % lengths[index] == 0 for i in range(9)]


def test_the_true_reward_of_an_environment_whose_rewards_are_normalised():
    venv = VecNormalize(DummyVecEnv([Walk]), norm_obs=False)
    venv = LearnedRewardVecEnv(venv, make_reward(False, DISCRETE), gamma=0.9)
    venv.reset()
    steps = [venv.step(np.array([0])) for _ in range(4)]
    assert [infos[0]["original_reward"] for *_, infos in steps] == pytest.approx([11.0, 12.0, 13.0, 11.0])


def test_tail_where_the_last_transition_repeats():
    """r / (1 - gamma') for the agent's own gamma', whatever the model's."""
    reward = make_reward()
    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(1)]), reward, gamma=0.8)
    obs = venv.reset()
    _, rewards, _, infos = venv.step(np.array([1]))
    r = reward(obs, np.array([1]), infos[0]["terminal_observation"][None], np.array([True]))
    assert rewards == pytest.approx(r / (1 - 0.8), rel=1e-4)
    assert venv.reward is reward and venv.gamma == 0.8


def test_tail_of_a_known_value():
    """V of terminal states is -3: they pay (1 - 0.99) * -3 at each step, times gamma' / (1 - gamma') = 4 in all."""
    reward = make_reward(terminal_v=-3.0)
    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(1)]), reward, gamma=0.8)
    obs = venv.reset()
    _, rewards, _, _ = venv.step(np.array([1]))
    q = reward.predict_q(obs, np.array([1]))
    assert reward.gamma == 0.99
    assert rewards == pytest.approx(q - 0.99 * -3.0 + 4 * 0.01 * -3.0, abs=1e-4)


def test_advantages_have_no_tail():
    reward = make_reward(form="advantage")
    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(1)]), reward)
    obs = venv.reset()
    _, rewards, _, _ = venv.step(np.array([1]))
    assert rewards == pytest.approx(reward.predict_q(obs, np.array([1])) - reward.predict_value(obs), abs=1e-5)


def test_time_limit_of_gymnasium_and_monitor():
    reward = make_reward()

    def limited():
        return Monitor(gym.wrappers.TimeLimit(Walk(10), max_episode_steps=2))

    venv = LearnedRewardVecEnv(DummyVecEnv([limited]), reward)
    obs = venv.reset()
    for _ in range(2):
        last, (obs, rewards, dones, infos) = obs, venv.step(np.array([0]))
    assert dones[0] and infos[0]["TimeLimit.truncated"]
    assert rewards == pytest.approx(
        reward(last, np.array([0]), infos[0]["terminal_observation"][None], np.array([False])), abs=1e-5
    )
    assert infos[0]["episode"]["r"] == 11 + 12  # a Monitor within counts true rewards


def test_subprocesses():
    reward = make_reward()
    venv = LearnedRewardVecEnv(SubprocVecEnv([lambda: Walk(2), lambda: Walk(3)], start_method="fork"), reward)
    twin = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(2), lambda: Walk(3)]), reward)
    venv.reset()
    twin.reset()
    for _ in range(6):
        actions = np.array([0, 2])
        assert venv.step(actions)[1] == pytest.approx(twin.step(actions)[1], abs=1e-5)
    venv.close()


def test_images_channels_last():
    env = RandomEnv(IMAGE, DISCRETE, length=3)
    model = IQLearn("CnnPolicy", env, random_trajectories(env), policy_kwargs=dict(net_arch=[16]), **SMALL).learn(2)
    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: RandomEnv(IMAGE, DISCRETE, length=3)]), LearnedReward(model))
    obs = venv.reset()
    for _ in range(3):
        last, (obs, rewards, _, infos) = obs, venv.step(np.array([1]))
    terminal = infos[0]["terminal_observation"][None]
    assert rewards == pytest.approx(model.predict_reward(last, np.array([1]), terminal, np.array([True])), abs=1e-4)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize(("agent", "action_space"), [(PPO, DISCRETE), (DQN, DISCRETE), (SAC, WIDE_BOX)])
def test_agents_learn(agent, action_space):
    reward = make_reward(action_space=action_space)
    inner = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(5, action_space=action_space)]), reward, gamma=0.99)
    venv = VecNormalize(inner, norm_obs=True, gamma=0.99)
    settings = dict(n_steps=16, batch_size=16) if agent is PPO else dict(learning_starts=20, buffer_size=100)
    learner = agent("MlpPolicy", venv, device="cpu", seed=0, **settings).learn(64)
    assert [info["r"] for info in learner.ep_info_buffer] == []  # no Monitor, no statistics
    assert learner.num_timesteps >= 64


def test_agents_of_one_environment_by_its_id():
    reward = LearnedReward(IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL).learn(20))
    learner = PPO("MlpPolicy", LearnedRewardVecEnv(make_vec_env("CartPole-v1", 4), reward), n_steps=64, device="cpu").learn(
        256
    )
    returns = [info["r"] for info in learner.ep_info_buffer]
    assert returns and all(r == round(r) and r >= 5 for r in returns)  # the Monitor's: true rewards of 1 a step


class Reuses(DummyVecEnv):
    """Returns its own buffers, and writes to them at the next step."""

    def step_wait(self):
        obs, rewards, dones, infos = super().step_wait()
        self.kept[:] = obs
        return self.kept, rewards, dones, infos

    def reset(self):
        self.kept = super().reset()
        return self.kept


@pytest.mark.parametrize("form", ["bellman", "bounded"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_buffers_that_are_written_to_again(action_space, form):
    reward = make_reward(action_space=action_space, form=form)
    makers = [lambda length=length: Walk(length, action_space=action_space) for length in (2, 3)]
    reuses, twin = (LearnedRewardVecEnv(made, reward, reward.gamma) for made in (Reuses(makers), DummyVecEnv(makers)))
    reuses.reset()
    twin.reset()
    for _ in range(6):
        actions = np.stack([np.asarray(action_space.sample()) for _ in range(2)])
        assert reuses.step(actions)[1] == pytest.approx(twin.step(actions)[1], abs=1e-5)


@pytest.mark.parametrize("action_space", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
def test_actions_of_several_parts(action_space):
    """Q is the sum over the parts, and so is V: beside the model's own, across automatic and other resets."""
    env = Walk(3, action_space=action_space)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL).learn(20)
    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(3, action_space=action_space)]), LearnedReward(model))
    for _ in range(2):
        obs = venv.reset()
        for _ in range(5):
            actions = action_space.sample()[None]
            last, (obs, rewards, dones, infos) = obs, venv.step(actions)
            next_obs = infos[0]["terminal_observation"][None] if dones[0] else obs
            assert rewards == pytest.approx(model.predict_reward(last, actions, next_obs, dones), abs=1e-4)


class Forgetful(DummyVecEnv):
    def step_wait(self):
        obs, rewards, dones, infos = super().step_wait()
        return obs, rewards, dones, [{} for _ in infos]


def test_another_discount_factor_is_told():
    reward = make_reward()
    with pytest.warns(UserWarning, match=r"`gamma` is 0.9, the model's is 0.99: .* states of low value"):
        LearnedRewardVecEnv(DummyVecEnv([Walk]), reward, gamma=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LearnedRewardVecEnv(DummyVecEnv([Walk]), reward)
        LearnedRewardVecEnv(DummyVecEnv([Walk]), reward.with_form("bounded"), gamma=0.9)


def test_bad_arguments():
    reward = make_reward()
    with pytest.raises(TypeError, match=r"`venv` is a Walk, no VecEnv: make it one by DummyVecEnv"):
        LearnedRewardVecEnv(Walk(), reward)
    venv = DummyVecEnv([Walk])
    with pytest.raises(TypeError, match=r"`reward` is a function: give LearnedReward"):
        LearnedRewardVecEnv(venv, make_reward)
    with pytest.raises(ValueError, match=r"`gamma` is 1: give the discount factor"):
        LearnedRewardVecEnv(venv, reward, gamma=1)
    with pytest.raises(ValueError, match=r"`terminal_reward` is 'zero': choose one of absorbing, once"):
        LearnedRewardVecEnv(venv, reward, terminal_reward="zero")
    with pytest.raises(ValueError, match=r"put LearnedRewardVecEnv inside"):
        LearnedRewardVecEnv(VecFrameStack(VecNormalize(venv), 1), reward)
    with pytest.raises(ValueError, match=r"`venv` has the observation space .* but the reward was learned with"):
        LearnedRewardVecEnv(DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE)]), reward)
    with pytest.raises(ValueError, match=r"`venv` has the action space Box"):
        LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(action_space=WIDE_BOX)]), reward)
    with pytest.raises(ValueError, match=r"`venv` has the observation space Dict"):
        LearnedRewardVecEnv(DummyVecEnv([lambda: Walk(named=True)]), reward)
    with pytest.raises(ValueError, match=r"before it was reset: call reset"):
        LearnedRewardVecEnv(venv, reward).step(np.array([0]))
    forgetful = LearnedRewardVecEnv(Forgetful([lambda: Walk(1)]), reward)
    forgetful.reset()
    with pytest.raises(ValueError, match=r"`infos\[0\]` has no terminal_observation"):
        forgetful.step(np.array([0]))
