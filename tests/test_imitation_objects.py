"""The imitation library: what it rolls out and saves is read right, what we write it reads, and IQLearn is its expert."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.demonstrations import Trajectory, record, save_trajectories
from tests.utils import BOX, DICT, DISCRETE, IMAGE, WIDE_BOX, RandomEnv

LIMIT = 18
N_EPISODES = 12


@pytest.fixture(scope="module")
def imitation():
    """The package; its modules are imported here, since they are only there on one of the two stacks."""
    pytest.importorskip("imitation", reason="the imitation library is not installed")
    import imitation.algorithms.base
    import imitation.algorithms.bc
    import imitation.data.rollout
    import imitation.data.serialize
    import imitation.data.wrappers

    return imitation


def make_cartpole() -> gym.Env:
    """A random policy's pole falls in some of the episodes, the others reach the limit."""
    return gym.make("CartPole-v1", max_episode_steps=LIMIT)


def make_venv(imitation, make_env=make_cartpole, seed=0):
    venv = DummyVecEnv([lambda: imitation.data.wrappers.RolloutInfoWrapper(make_env())] * 2)
    venv.seed(seed)
    venv.action_space.seed(seed)
    return venv


def roll_out(imitation, venv, policy=None, n_episodes=N_EPISODES, **kwargs):
    rollout = imitation.data.rollout
    return rollout.rollout(policy, venv, rollout.make_min_episodes(n_episodes), np.random.default_rng(0), **kwargs)


def has_fallen(obs: np.ndarray) -> bool:
    """CartPole's own rule."""
    return bool(abs(obs[0]) > 2.4 or abs(obs[2]) > 12 * np.pi / 180)


def assert_read_right(demonstrations, rollouts):
    """The content of every episode, and how CartPole ended it."""
    assert len(demonstrations.trajectories) == len(rollouts)
    for trajectory, expected in zip(demonstrations.trajectories, rollouts, strict=True):
        np.testing.assert_array_equal(trajectory.obs, np.asarray(expected.obs, dtype=np.float32))
        np.testing.assert_array_equal(trajectory.acts, expected.acts)
        np.testing.assert_array_equal(trajectory.rews, expected.rews)
        fallen = has_fallen(expected.obs[-1])
        assert (trajectory.terminated, trajectory.truncated) == (fallen, not fallen)


def assert_learned_right(rollouts, expert_data):
    """IQLearn knows the limit from the environment."""
    model = IQLearn("MlpPolicy", make_cartpole(), expert_data, offline=True, seed=0, device="cpu").learn(2)
    ends = np.cumsum([len(rollout.acts) for rollout in rollouts]) - 1
    fallen = [has_fallen(rollout.obs[-1]) for rollout in rollouts]
    assert model.expert_buffer.size() == ends[-1] + 1
    assert np.flatnonzero(model.expert_buffer.all().dones.numpy()).tolist() == ends[fallen].tolist()


@pytest.fixture(scope="module", params=[True, False], ids=["infos", "no infos"])
def rollouts(imitation, request):
    trajectories = roll_out(imitation, make_venv(imitation), exclude_infos=not request.param)
    fallen = [has_fallen(trajectory.obs[-1]) for trajectory in trajectories]
    assert 2 < sum(fallen) < N_EPISODES - 2 and all(trajectory.terminal for trajectory in trajectories)
    return trajectories


@pytest.fixture
def limit(rollouts):
    """Where the infos tell the end, no limit has to be known."""
    return LIMIT if rollouts[0].infos is None else None


def test_rollouts(rollouts, limit):
    demonstrations = load_demonstrations(rollouts, max_episode_steps=limit)
    assert_read_right(demonstrations, rollouts)
    assert {t.ending for t in demonstrations.trajectories} == ({"limit", "assumed"} if limit else {"info"})
    assert_learned_right(rollouts, rollouts)
    assert load_demonstrations(rollouts, n_trajectories=3).n_transitions == sum(len(r) for r in rollouts[:3])


def test_rollouts_without_infos_or_limit(imitation):
    """imitation calls every end terminal: what can't be known is warned of."""
    rollouts = roll_out(imitation, make_venv(imitation))
    venv = DummyVecEnv([lambda: RandomEnv(make_cartpole().observation_space, make_cartpole().action_space)])
    with pytest.warns(UserWarning, match=f"end after {LIMIT} steps, the maximum length, and no time limit is known"):
        model = IQLearn("MlpPolicy", venv, rollouts, offline=True, device="cpu")
    assert model.expert_buffer.all().dones.sum() == len(rollouts)


def test_saved_and_loaded(imitation, rollouts, limit, tmp_path):
    imitation.data.serialize.save(tmp_path / "rollouts", rollouts)
    lazy = imitation.data.serialize.load(tmp_path / "rollouts")
    for source in (lazy, list(lazy), tmp_path / "rollouts", str(tmp_path / "rollouts"), lazy.dataset):
        assert_read_right(load_demonstrations(source, max_episode_steps=limit), rollouts)
    assert_learned_right(rollouts, lazy)
    chosen = load_demonstrations(lazy, n_trajectories=4, seed=1)
    assert chosen.content_hash == load_demonstrations(tmp_path / "rollouts", n_trajectories=4, seed=1).content_hash


def test_transitions(imitation, rollouts, limit):
    rollout = imitation.data.rollout
    with_rewards = rollout.flatten_trajectories_with_rew(rollouts)
    assert_read_right(load_demonstrations(with_rewards, max_episode_steps=limit), rollouts)
    assert_learned_right(rollouts, with_rewards)
    without = load_demonstrations(rollout.flatten_trajectories(rollouts), max_episode_steps=limit)
    assert without.episode_returns is None
    assert [t.terminated for t in without.trajectories] == [has_fallen(r.obs[-1]) for r in rollouts]


def test_what_lacks_something_is_refused(imitation, rollouts):
    types = imitation.data.types
    transitions = imitation.data.rollout.flatten_trajectories(rollouts)
    minimal = types.TransitionsMinimal(obs=transitions.obs, acts=transitions.acts, infos=transitions.infos)
    loader = th.utils.data.DataLoader(transitions, batch_size=8, collate_fn=types.transitions_collate_fn)
    of_imitation = imitation.algorithms.base.make_data_loader(transitions, batch_size=8)
    for source, message in (
        (minimal, r"TransitionsMinimal, which lacks next_obs and dones.*Pass imitation's Transitions"),
        (loader, "DataLoader, whose shuffled batches lack the order and the ends of episodes"),
        (of_imitation, "DataLoader, whose shuffled batches lack the order and the ends of episodes"),
    ):
        with pytest.raises(TypeError, match=message):
            load_demonstrations(source)
        with pytest.raises(TypeError, match=message):
            IQLearn("MlpPolicy", "CartPole-v1", source)


def test_fragments_are_neither_terminated_nor_truncated(imitation):
    """Episodes that imitation's buffer has cut off in the middle."""
    venv = imitation.data.wrappers.BufferingWrapper(make_venv(imitation))
    venv.reset()
    for _ in range(LIMIT + 4):
        venv.step(np.array([venv.action_space.sample() for _ in range(venv.num_envs)]))
    fragments, _ = venv.pop_trajectories()
    trajectories = load_demonstrations(fragments).trajectories
    assert [t.terminated or t.truncated for t in trajectories] == [f.terminal for f in fragments]
    assert {f.terminal for f in fragments} == {True, False}


@pytest.mark.parametrize("observation_space", [DICT, IMAGE], ids=["dict", "image"])
@pytest.mark.parametrize("truncates", [False, True])
def test_observations_of_other_kinds(imitation, observation_space, truncates, tmp_path):
    venv = make_venv(imitation, lambda: RandomEnv(observation_space, WIDE_BOX, length=5, truncates=truncates))
    rollouts = roll_out(imitation, venv, n_episodes=3, exclude_infos=False)
    sources = [rollouts]
    if observation_space is IMAGE:  # imitation can't save dictionaries
        imitation.data.serialize.save(tmp_path / "images", rollouts)
        sources.append(imitation.data.serialize.load(tmp_path / "images"))
    for source in sources:
        demonstrations = load_demonstrations(source)
        for trajectory, expected in zip(demonstrations.trajectories, rollouts, strict=True):
            assert (trajectory.terminated, trajectory.truncated) == (not truncates, truncates)
            if observation_space is IMAGE:
                assert trajectory.obs.dtype == np.uint8  # a lazy sequence of imitation gives int64
                np.testing.assert_array_equal(trajectory.obs, expected.obs)
            else:
                for key, array in expected.obs.unwrap().items():
                    np.testing.assert_array_equal(trajectory.obs[key], array)
    policy = "CnnPolicy" if observation_space is IMAGE else "MultiInputPolicy"
    IQLearn(policy, venv, rollouts, batch_size=4, buffer_size=100, learning_starts=4, device="cpu").learn(6)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_iq_learn_is_an_expert(imitation, name):
    venv = make_venv(imitation, lambda: gym.make(name, max_episode_steps=LIMIT))
    model = IQLearn("MlpPolicy", venv, roll_out(imitation, venv, n_episodes=2), offline=True, seed=0, device="cpu").learn(20)
    model.set_env(venv)
    rollouts = []
    for expert in (model, model.policy):
        venv = make_venv(imitation, lambda: gym.make(name, max_episode_steps=LIMIT))
        rollouts.append(roll_out(imitation, venv, expert, n_episodes=4, deterministic_policy=True))
    assert rollouts[0] == rollouts[1]
    student = IQLearn("MlpPolicy", make_venv(imitation, lambda: gym.make(name, max_episode_steps=LIMIT)), rollouts[0])
    assert student.expert_buffer.size() == sum(len(rollout) for rollout in rollouts[0])


@pytest.mark.parametrize("with_rewards", [True, False])
def test_what_we_write(imitation, with_rewards, tmp_path):
    episodes = record(lambda obs: int(obs[2] > 0), make_cartpole(), 3) + record(lambda obs: 0, make_cartpole(), 3)
    episodes.append(Trajectory(episodes[0].obs[:6], episodes[0].acts[:5], episodes[0].rews[:5], False, False))
    if not with_rewards:
        episodes = [Trajectory(e.obs, e.acts, None, e.terminated, e.truncated) for e in episodes]
    save_trajectories(episodes, tmp_path / "ours")
    loaded = imitation.data.serialize.load(tmp_path / "ours")
    assert len(loaded) == len(episodes)
    for theirs, ours in zip(loaded, episodes, strict=True):
        assert type(theirs).__name__ == ("TrajectoryWithRew" if with_rewards else "Trajectory")
        np.testing.assert_array_equal(theirs.obs, ours.obs)
        np.testing.assert_array_equal(theirs.acts, ours.acts)
        assert theirs.terminal == (ours.terminated or ours.truncated)
        assert list(theirs.infos[:-1]) == [{}] * (len(ours) - 1)
        assert theirs.infos[-1] == ({"TimeLimit.truncated": ours.truncated} if theirs.terminal else {})
        if with_rewards:
            np.testing.assert_array_equal(theirs.rews, ours.rews)
    assert {(e.terminated, e.truncated) for e in episodes} == {(True, False), (False, True), (False, False)}
    # and again, by way of imitation
    assert load_demonstrations(loaded).content_hash == load_demonstrations(episodes).content_hash
    transitions = imitation.data.rollout.flatten_trajectories(loaded)
    assert transitions.dones.sum() == len(episodes) - 1
    cartpole = make_cartpole()
    spaces = dict(observation_space=cartpole.observation_space, action_space=cartpole.action_space)
    bc = imitation.algorithms.bc.BC(**spaces, demonstrations=loaded, rng=np.random.default_rng(0), device="cpu")
    bc.train(n_batches=2, progress_bar=False)


def test_actions_of_a_box(imitation):
    """In the environment's units, as imitation records them, and scaled as SB3's buffers hold them."""
    venv = make_venv(imitation, lambda: RandomEnv(BOX, WIDE_BOX, length=5))
    rollouts = roll_out(imitation, venv, n_episodes=4)
    acts = np.concatenate([rollout.acts for rollout in rollouts])
    model = IQLearn("MlpPolicy", venv, rollouts, offline=True, device="cpu")
    expected = 2 * (acts - WIDE_BOX.low) / (WIDE_BOX.high - WIDE_BOX.low) - 1
    np.testing.assert_allclose(model.expert_buffer.all().actions.numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="expert_data"):
        IQLearn("MlpPolicy", RandomEnv(BOX, DISCRETE), rollouts)
