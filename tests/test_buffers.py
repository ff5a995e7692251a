"""The replay buffer: allocated late, the starts of its episodes, the prior rewards of its transitions, and what is refused."""

import numpy as np
import pytest
import stable_baselines3.common.buffers
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn
from sb3_iq.iq_learn.discounted import ReplayOccupancy
from sb3_iq.iq_learn.replay import CompactReplayBuffer, observations_at
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, RandomEnv, assert_finite, make_model, random_trajectories

COUNTER = spaces.Box(0, 10_000, (1,), np.float32)
VECTORS = spaces.Dict({"a": BOX, "b": spaces.Discrete(4)})
COMPACT = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))


def fill(buffer, lengths, n_steps):
    """Observation = 100 * episode + step, for each environment on its own, with the given lengths of episodes in turn."""
    n_envs = buffer.n_envs
    episode, step = np.arange(n_envs), np.zeros(n_envs, dtype=int)
    for _ in range(n_steps):
        obs = (100.0 * episode + step)[:, None]
        done = step + 1 >= np.array(lengths)[episode % len(lengths)]
        infos = [{"TimeLimit.truncated": bool(d and e % 2)} for d, e in zip(done, episode, strict=True)]
        if isinstance(buffer, DictReplayBuffer):
            buffer.add({"a": obs}, {"a": obs + 1}, np.zeros((n_envs, 1)), np.zeros(n_envs), done, infos)
        else:
            buffer.add(obs, obs + 1, np.zeros((n_envs, 1)), np.zeros(n_envs), done, infos)
        episode, step = episode + n_envs * done, np.where(done, 0, step + 1)


def starts(buffer, n, n_added):
    """:return: n observations that episodes of the buffer start with"""
    occupancy = ReplayOccupancy(buffer, gamma=0.9)
    occupancy.follow(n_added)
    return observations_at(buffer, *occupancy.draw_starts(n))


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 7, 20, 21, 50, 64])
@pytest.mark.parametrize("kind", [ReplayBuffer, DictReplayBuffer])
def test_only_starts_of_episodes(n_envs, n_steps, kind):
    """Whatever the buffer has forgotten, and whether episodes were terminated or truncated."""
    np.random.seed(0)
    space = spaces.Dict({"a": COUNTER}) if kind is DictReplayBuffer else COUNTER
    buffer = kind(20 * n_envs, space, spaces.Discrete(2), n_envs=n_envs)
    fill(buffer, [4, 7, 2], n_steps)
    obs = starts(buffer, 300, n_steps)
    obs = (obs["a"] if kind is DictReplayBuffer else obs).numpy()
    assert obs.shape == (300, 1)
    assert (obs % 100 == 0).all()
    stored = buffer.observations["a"] if kind is DictReplayBuffer else buffer.observations
    stored = stored[: buffer.size()]
    assert set(np.unique(obs)) == set(np.unique(stored[stored % 100 == 0])) or n_steps >= 20  # the oldest row's past is gone


def test_an_episode_longer_than_the_buffer():
    buffer = ReplayBuffer(5, COUNTER, spaces.Discrete(2))
    fill(buffer, [90], 12)
    assert (starts(buffer, 10, 12).numpy() == 7).all()


def scanned_starts(buffer):
    """All starts of episodes in the buffer, by their definition: after an end, and where the run started."""
    starts = set()
    for row in range(buffer.size()):
        if buffer.full and row == buffer.pos:
            continue  # the step before it is gone
        first = row == 0 and not buffer.full
        starts |= {(row, env) for env in range(buffer.n_envs) if first or buffer.dones[row - 1, env]}
    return starts


def add(buffer, n_steps, rng, share=0.2):
    """Add transitions, each of which begins where the last one ended, or anew after an end."""
    for _ in range(n_steps):
        compact = buffer.optimize_memory_usage
        last = buffer.observations[buffer.pos] if compact else buffer.next_observations[buffer.pos - 1]
        goes_on = (buffer.size() > 0) & (buffer.dones[buffer.pos - 1] == 0)
        obs = np.where(goes_on[:, None], last, rng.uniform(size=(buffer.n_envs, 1)))
        next_obs = rng.uniform(size=(buffer.n_envs, 1))
        done = rng.uniform(size=buffer.n_envs) < share
        buffer.add(obs, next_obs, np.zeros((buffer.n_envs, 1)), np.zeros(buffer.n_envs), done, [{}] * buffer.n_envs)


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("options", [{}, dict(optimize_memory_usage=True, handle_timeout_termination=False)])
def test_starts_are_those_of_a_scan(n_envs, options):
    """However much is added between two draws, round the ring and over, and after the buffer was emptied or replaced."""
    np.random.seed(0)
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(15 * n_envs, COUNTER, spaces.Discrete(2), n_envs=n_envs, **options)
    occupancy, n_added = ReplayOccupancy(buffer, gamma=0.9), 0
    for n_steps in [1, 1, 3, 5, 4, 1, 1, 2, 7, 15, 1, 0, 14, 16, 3, 40, 1, 30, 6, -1, 2, 1, 9, -1, 20, 5]:
        if n_steps < 0:
            buffer.reset()
            add(buffer, 3, rng)
        add(buffer, n_steps, rng)
        n_added += 3 if n_steps < 0 else n_steps
        occupancy.follow(n_added)
        if rng.uniform() < 0.3:  # as SB3 does when an episode is cut between two calls of learn()
            buffer.dones[buffer.pos - 1] = True
        oldest = (buffer.pos + buffer.optimize_memory_usage) % buffer.buffer_size
        expected = scanned_starts(buffer) or {(oldest, env) for env in range(n_envs)}
        drawn = set(observations_at(buffer, *occupancy.draw_starts(400)).flatten().tolist())
        assert drawn == {buffer.observations[row, env].item() for row, env in expected}


def mixed(obs, reset_obs, ended):
    """:return: the observations that follow, those of a reset where an episode ended"""
    if isinstance(obs, dict):
        return {key: mixed(obs[key], reset_obs[key], ended) for key in obs}
    return np.where(ended.reshape(-1, *[1] * (obs.ndim - 1)), reset_obs.reshape(obs.shape), obs)


def add_random(model, n_steps, rng):
    """Add random transitions to the buffer of a model, as SB3 does, and count them."""
    buffer, n_envs = model.replay_buffer, model.n_envs

    def observe():
        many = [model.observation_space.sample() for _ in range(n_envs)]
        if isinstance(model.observation_space, spaces.Dict):
            return {key: np.array([one[key] for one in many]) for key in many[0]}
        return np.array(many)

    obs = observe()
    if isinstance(buffer, CompactReplayBuffer):
        buffer.cut()
    for _ in range(n_steps):
        next_obs = observe()
        if isinstance(model.action_space, spaces.Discrete):
            actions = rng.integers(model.action_space.n, size=(n_envs, 1))
        else:
            actions = rng.uniform(-1, 1, size=(n_envs, *model.action_space.shape))
        ends = rng.uniform(size=n_envs)  # of the fifth that end, one half is terminated, the other truncated
        infos = [{"TimeLimit.truncated": bool(end < 0.1)} for end in ends]
        buffer.add(obs, next_obs, actions, rng.normal(size=n_envs), ends < 0.2, infos)
        model.num_timesteps += n_envs
        obs = next_obs if (ends >= 0.2).all() else mixed(next_obs, observe(), ends < 0.2)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize(
    "observation_space, options", [(BOX, {}), (VECTORS, {}), (BOX, COMPACT)], ids=["vector", "dict", "optimize_memory_usage"]
)
def test_stored_prior_rewards_are_those_computed_at_sampling(action_space, n_envs, observation_space, options):
    """However much is added between two batches, round the ring and over."""
    env = DummyVecEnv([lambda: RandomEnv(observation_space, action_space)] * n_envs)
    policy = "MultiInputPolicy" if observation_space is VECTORS else "MlpPolicy"
    settings = {**SMALL, "buffer_size": 24 * n_envs, "learning_starts": 8, "reward_prior": 2.0, **options}
    trajectories = random_trajectories(RandomEnv(observation_space, action_space))
    model = IQLearn(policy, env, trajectories, policy_kwargs=dict(net_arch=[8]), **settings).learn(12 * n_envs)
    model.observation_space.seed(7)  # not that of the demonstrations: a distance of 0 is inexact
    rng = np.random.default_rng(0)
    assert model.sampler.stored_prior is not None
    for n_steps in (0, 1, 3, 0, 20, 1, 24, 2, 31, 60, 1):
        add_random(model, n_steps, rng)
        model.sampler.stored_prior.follow(model.num_timesteps // n_envs)
        samples, stored = model.sampler.stored_prior.sample(200)
        assert stored.shape == (200,)
        assert th.allclose(stored, model.prior(samples), atol=1e-4)
        assert len(stored.unique()) > 2


def test_rewards_of_the_buffer_are_left_alone():
    model = make_model("MlpPolicy", BOX, WIDE_BOX).learn(30)
    assert (model.replay_buffer.rewards[:30] == 1).all() and (model.replay_buffer.sample(20).rewards == 1).all()


def test_a_buffer_filled_from_outside_has_prior_rewards_too(tmp_path):
    model = make_model("MlpPolicy", BOX, WIDE_BOX).learn(30)
    other = make_model("MlpPolicy", BOX, WIDE_BOX, seed=1).learn(30)
    other.save_replay_buffer(tmp_path / "replay")
    model.load_replay_buffer(tmp_path / "replay")
    model.learn(2, reset_num_timesteps=False)
    samples, stored = model.sampler.stored_prior.sample(100)
    assert th.allclose(stored, model.prior(samples), atol=1e-4)


def test_allocated_late_saved_and_loaded(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL)
    assert model._replay_buffer is None  # memory is taken when it is first asked for
    model.learn(30)
    model.save_replay_buffer(tmp_path / "replay")
    other = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL)
    other.load_replay_buffer(tmp_path / "replay")
    assert np.array_equal(other.replay_buffer.observations, model.replay_buffer.observations)
    assert other.learn(10).replay_buffer.size() == 40


def test_refused_buffers():
    class Mine(HerReplayBuffer):
        pass

    class NStepReplayBuffer(ReplayBuffer):  # SB3 2.2 has none
        pass

    of_sb3 = getattr(stable_baselines3.common.buffers, "NStepReplayBuffer", NStepReplayBuffer)
    for kind in (HerReplayBuffer, Mine, NStepReplayBuffer, of_sb3):
        with pytest.raises(ValueError, match=f"`replay_buffer_class` is {kind.__name__}"):
            make_model("MlpPolicy", BOX, DISCRETE, replay_buffer_class=kind)


def test_refused_in_the_constructor_rather_than_in_learn():
    for kwargs in ({}, dict(replay_buffer_kwargs=dict(handle_timeout_termination=True))):
        with pytest.raises(ValueError, match=r"optimize_memory_usage.*add replay_buffer_kwargs=dict\(handle_timeout_term"):
            make_model("MlpPolicy", BOX, DISCRETE, optimize_memory_usage=True, **kwargs)
    with pytest.raises(AssertionError, match="DictReplayBuffer does not support"):
        make_model("MultiInputPolicy", VECTORS, DISCRETE, **COMPACT)
    with pytest.raises(TypeError, match="unknown"):
        make_model("MlpPolicy", BOX, DISCRETE, replay_buffer_kwargs=dict(unknown=1))


def test_the_replay_buffer_can_be_filled_before_learning():
    env = RandomEnv(BOX, DISCRETE)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), buffer_size=100, learning_starts=5, batch_size=16, seed=0)
    obs = np.zeros((1, 3), np.float32)
    assert model.replay_buffer is not None and model.replay_buffer.size() == 0
    model.replay_buffer.add(obs, obs, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    model.learn(30)
    assert model.replay_buffer.size() == 31


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [7, 20, 29, 40, 53])
def test_time_limits_without_their_next_observation_are_not_sampled(n_envs, n_steps):
    """All other transitions are, equally often; every second episode ends by a time limit."""
    np.random.seed(0)
    options = dict(optimize_memory_usage=True, handle_timeout_termination=False)
    buffer = CompactReplayBuffer(20 * n_envs, COUNTER, spaces.Discrete(2), "cpu", n_envs=n_envs, **options)
    lengths = [4, 3, 6]
    fill(buffer, lengths, n_steps)
    samples = buffer.sample(20_000)
    obs, next_obs, dones = (
        values.flatten().numpy().astype(int) for values in (samples.observations, samples.next_observations, samples.dones)
    )
    episode, step = np.divmod(obs, 100)
    last = step + 1 == np.array(lengths)[episode % 3]
    assert not (last & (episode % 2 == 1)).any()
    assert np.array_equal(dones == 1, last & (episode % 2 == 0))
    assert np.array_equal(next_obs[dones == 0], obs[dones == 0] + 1)
    # Those of SB3 are all but the oldest one of a full buffer
    rows = np.setdiff1d(np.arange(buffer.size()), [buffer.pos] if buffer.full else [])
    expected = np.unique(buffer.observations[rows][buffer.timeouts[rows] == 0].astype(int))
    found, counts = np.unique(obs, return_counts=True)
    assert np.array_equal(found, expected)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_time_limits_alone_cannot_be_sampled():
    options = dict(optimize_memory_usage=True, handle_timeout_termination=False)
    buffer = CompactReplayBuffer(10, COUNTER, spaces.Discrete(2), "cpu", **options)
    for step in range(5):
        done = np.array([True])
        limits = [{"TimeLimit.truncated": step != 2}]
        buffer.add(np.full((1, 1), step), np.full((1, 1), step + 1), np.zeros((1, 1)), np.zeros(1), done, limits)
        if step == 1:
            with pytest.raises(ValueError, match="nothing but the last transitions of episodes that a time limit ended"):
                buffer.sample(4)
    assert (buffer.sample(50).observations == 2).all()


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_learning_with_less_memory(tmp_path, action_space):
    """Time limits are time limits: nothing is taken as a terminal state, here or in a buffer that was loaded."""
    env = DummyVecEnv([lambda: RandomEnv(BOX, action_space, length=5, truncates=True)] * 2)
    trajectories = random_trajectories(RandomEnv(BOX, action_space))
    options = {**SMALL, "buffer_size": 60, **COMPACT}
    model = IQLearn("MlpPolicy", env, trajectories, reward_prior=1.0, **options).learn(90)
    assert model.replay_buffer.full and (model.replay_buffer.timeouts == model.replay_buffer.dones).all()
    policy, prior = model.sampler.stored_prior.sample(500)
    assert not policy.dones.any() and th.allclose(prior, model.prior(policy), atol=1e-4)
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    assert not model.replay_buffer.sample(500).dones.any()
    # SB3 marks where it cuts an episode, as if it had come to a terminal state
    for reset_num_timesteps in (False, True):
        model.learn(14, reset_num_timesteps=reset_num_timesteps)
        assert not model.replay_buffer.sample(500).dones.any()
    assert_finite(model)


def test_with_less_memory_learning_in_pieces_loses_no_transition():
    """Where the environment is not reset in between, the next transition goes on where the last one ended."""
    env = RandomEnv(BOX, WIDE_BOX, length=7, truncates=True)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **{**SMALL, **COMPACT})
    for _ in range(20):
        model.learn(1, reset_num_timesteps=False)
    assert model.replay_buffer.timeouts[:20, 0].tolist() == model.replay_buffer.dones[:20, 0].tolist()
    with pytest.warns(UserWarning, match="The last trajectory in the replay buffer will be truncated"):
        model.learn(1)
    assert model.replay_buffer.timeouts[19, 0] == 1
