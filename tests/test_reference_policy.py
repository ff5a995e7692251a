"""What online training begins with: a clone, or the policy that there is, judged by its first episodes and held to by that."""

from dataclasses import replace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn import reference_policy
from sb3_iq.iq_learn.reference_policy import (
    ALIVE,
    CLONE_PLAYS,
    ENOUGH,
    EPISODES,
    JUDGED,
    PLAYS,
    UNSET,
    ReferencePolicy,
    share_of_demonstrations,
)
from tests.utils import BOX, DICT, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, make_model, random_trajectories, sample_batch

# Steps of an episode
LENGTH = 20
FAR = spaces.Box(-1e6, 1e6, (3,), np.float32)


class LineEnv(RandomEnv):
    """The state is what the actions add up to; a step beyond 2 ends the episode in a terminal state."""

    def __init__(self, length=None):
        length = LENGTH if length is None else length
        super().__init__(spaces.Box(-100.0, 100.0, (1,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32), length, True)

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        self.state = 0.0
        return np.zeros(1, np.float32), info

    def step(self, action):
        self.state += float(action[0])
        _, reward, _, truncated, info = super().step(action)
        fell = abs(self.state) > 2
        return np.array([self.state], np.float32), reward, fell, truncated and not fell, info


def back_and_forth(n=20):
    """:return: a demonstration that stays in reach: from 0 to 1 and back"""
    obs = (np.arange(n + 1) % 2).astype(np.float32)
    return Trajectory(obs[:, None], np.where(obs[:-1] == 0, 1.0, -1.0).astype(np.float32)[:, None], None, False, True)


def line_model(n_envs=1, **kwargs):
    env = DummyVecEnv([LineEnv] * n_envs)
    options = dict(learning_starts=20, batch_size=8, seed=0, device="cpu", buffer_size=400, policy_kwargs=dict(net_arch=[16]))
    return IQLearn("MlpPolicy", env, [back_and_forth()], **{**options, **kwargs})


def actions_of(actor, buffer, rows):
    with th.no_grad():
        return actor(th.as_tensor(buffer.observations[rows, 0]), deterministic=True).numpy()


def same(first, second):
    return all(map(th.equal, first.state_dict().values(), second.state_dict().values()))


class Stages(BaseCallback):
    """Notes at each step at which stage the reference is."""

    def __init__(self):
        super().__init__()
        self.stages = []

    def _on_step(self):
        self.stages.append(int(self.model.reference.stage))
        return True


@pytest.fixture
def losses(monkeypatch):
    """:return: what ReferencePolicy.loss() returned"""
    returned, original = [], ReferencePolicy.loss

    def loss(self, *args):
        returned.append(original(self, *args))
        return returned[-1]

    monkeypatch.setattr(ReferencePolicy, "loss", loss)
    return returned


@pytest.mark.learns
def test_a_good_clone_is_started_from_and_kept_to(losses):
    model, stages = line_model(policy_kwargs=dict(net_arch=[64, 64])), Stages()
    model.learn(99, callback=stages)
    reference = model.reference
    # While it plays, the critic alone learns, and the policy waits where it begins
    assert same(model.policy.actor, reference.actor) and model._n_updates == 79 and not losses
    model.learn(11, callback=stages, reset_num_timesteps=False)
    # It plays all five episodes, then the policy does
    assert stages.stages == [CLONE_PLAYS] * 21 + [PLAYS] * (20 * EPISODES - 21) + [JUDGED] * (110 - 20 * EPISODES)
    played = model.replay_buffer.actions[:100, 0]
    assert played == pytest.approx(actions_of(reference.actor, model.replay_buffer, slice(100)), abs=1e-5)
    assert np.abs(played - np.tile([[1.0], [-1.0]], (50, 1))).max() < 0.1
    assert float(reference.share) > 0.8 and reference.holds
    expert = model.expert_buffer.all()
    assert float(model.policy.cloning_loss(expert.observations, expert.actions).detach()) < 0.1
    assert len(losses) == 11 and model._n_updates == 90 and not same(model.policy.actor, reference.actor)


@pytest.mark.parametrize("judged", [(ENOUGH - 0.01, 1.0), (1.0, ALIVE - 0.01)])
def test_a_clone_that_fails_is_given_up(monkeypatch, losses, judged):
    """Then the policy starts as it was made, and nothing holds it."""
    monkeypatch.setattr(reference_policy, "share_of_demonstrations", lambda *args: judged)
    model, untouched = line_model(), line_model()
    model.learn(20)
    assert int(model.reference.stage) == CLONE_PLAYS and same(model.policy.actor, untouched.policy.actor)
    assert not same(model.reference.actor, model.policy.actor)
    monkeypatch.setattr(model.policy, "average_actor", lambda n_updates: None)
    model.learn(1, reset_num_timesteps=False)
    assert int(model.reference.stage) == JUDGED and not model.reference.holds and model._n_updates == 1
    assert same(model.policy.averaged_actor, untouched.policy.actor)
    model.learn(100, reset_num_timesteps=False)
    assert model._n_updates == 101 and not losses


def test_a_short_episode_is_no_fall_where_demonstrations_end(monkeypatch):
    monkeypatch.setattr(reference_policy, "share_of_demonstrations", lambda *args: (1.0, ALIVE - 0.01))
    model = line_model()
    model.set_expert_data([replace(back_and_forth(), terminated=True, truncated=False)])
    model.learn(21)
    assert model.reference.is_good


def test_the_share_by_hand():
    """Of two environments, one ends after three steps in a terminal state and goes on, the other by a time limit."""
    model = line_model(n_envs=2).learn(1)
    buffer, prior = model.replay_buffer, model.prior
    buffer.reset()
    for step in range(20):
        dones, timeouts = np.array([step == 19, step == 2]), [step == 19, False]
        obs = np.array([[step % 2], [0.5]], np.float32)
        infos = [{"TimeLimit.truncated": timeout} for timeout in timeouts]
        buffer.add(obs, obs, np.array([[1.0], [0.2]]), np.zeros(2), dones, infos)
    rewards = [
        float(prior(model.expert_buffer.all()._replace(observations=th.tensor([[o]]), actions=th.tensor([[a]]))))
        for o, a in ([(step % 2, 1.0) for step in range(20)] + [(0.5, 0.2)] * 20)
    ]
    # The episode of three steps lacks 17 of the demonstration's 20
    level = float(model.sampler.expert_prior.mean())
    expected = sum(rewards) / (20 + 20 + 17) / level
    judged = share_of_demonstrations(buffer, np.arange(20), model.sampler)
    assert judged == pytest.approx((expected, 40 / 57), rel=1e-5)
    # From the second step on, the second environment's first episode is a piece, which does not count
    expected = (sum(rewards[1:20]) + 17 * rewards[-1]) / (19 + 17) / level
    assert share_of_demonstrations(buffer, np.arange(1, 20), model.sampler)[0] == pytest.approx(expected, rel=1e-5)
    # From where it begins the second episode counts, as it has not ended
    expected = (sum(rewards[3:20]) + 17 * rewards[-1]) / (17 + 17) / level
    assert share_of_demonstrations(buffer, np.arange(3, 20), model.sampler)[0] == pytest.approx(expected, rel=1e-5)


def test_the_loss_by_hand():
    model = line_model().learn(30)
    model.reference.share.fill_(0.5)
    model.reference.share_of_policy.fill_(1.0)
    batch = sample_batch(model, 8)._replace(reward_prior=th.linspace(0.1, 2.0, 10))
    actions = th.linspace(-1, 1, 10)[:, None]
    mine = actions[batch.n_expert :]
    theirs = model.reference.actor(batch.obs[batch.n_expert :], deterministic=True)
    weights = (batch.reward_prior[batch.n_expert :] / 0.5).clamp(max=1.0) ** 2
    expected = 0.25 * (weights * ((mine - theirs) ** 2).sum(dim=1)).mean()
    assert float(model.reference.loss(batch, actions, th.tensor(0.5))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "share, of_policy, expected", [(0.5, 0.0, 0.25), (1.3, 0.9, 1.0), (1.3, 1.05, 0.5), (1.3, 1.1, 0.0), (0.8, 1.3, 0.0)]
)
def test_what_earns_more_than_the_demonstrations_is_not_held(share, of_policy, expected):
    reference = line_model().learn(1).reference
    reference.share.fill_(share)
    reference.share_of_policy.fill_(of_policy)
    assert float(reference.weight) == pytest.approx(expected, abs=1e-5)
    assert reference.is_good and reference.holds == (expected > 1e-5)


@pytest.mark.learns
def test_the_policys_own_episodes_are_followed(monkeypatch, losses):
    """Where they earn more than the demonstrations it is let go, where they fall back it is held again."""
    monkeypatch.setattr(reference_policy, "EVERY", 10)
    model = line_model().learn(20 * EPISODES + 1)
    rows, shares = [], iter([1.2, 0.7, 1.2])

    def share(buffer, of, sampler):
        rows.append(len(of))
        return next(shares), 1.0

    monkeypatch.setattr(reference_policy, "share_of_demonstrations", share)
    held = []
    for _ in range(3):
        n_losses = len(losses)
        model.learn(10, reset_num_timesteps=False)
        held.append(len(losses) - n_losses)
    assert rows == [20 * EPISODES] * 3
    # A look is taken in the last of ten steps
    assert held == [9, 1, 9]
    # A count of steps that begins again doesn't stop it
    shares = iter([0.5])
    model.learn(21)
    assert float(model.reference.share_of_policy) == pytest.approx(0.5)


def test_many_environments_and_short_demonstrations():
    """One row at least is looked at."""
    model = line_model(n_envs=3, buffer_size=30).learn(30)
    model.reference.share.fill_(1.0)
    model.reference.follow(model.replay_buffer, model.sampler, 10**6)
    assert float(model.reference.share_of_policy) > 0


@pytest.mark.learns
@pytest.mark.parametrize(
    "n_envs, length, buffer_size, n_steps", [(1, 1_000, 400, 100), (2, 1_000, 400, 100), (1, 1_000, 50, 50)]
)
def test_endless_episodes_are_judged(monkeypatch, n_envs, length, buffer_size, n_steps):
    """After as many steps as five demonstrations have, or a full buffer."""
    monkeypatch.setitem(globals(), "LENGTH", length)
    model, stages = line_model(n_envs, buffer_size=buffer_size * n_envs), Stages()
    model.learn(110, callback=stages)
    assert stages.stages.index(JUDGED) * n_envs == pytest.approx(n_steps, abs=n_envs)


def test_what_was_trained_offline_is_the_reference():
    model = line_model()
    model.learn(30, offline=True)
    averaged = {name: values.clone() for name, values in model.policy.averaged_actor.state_dict().items()}
    model.learn(25)
    assert all(th.equal(values, averaged[name]) for name, values in model.reference.actor.state_dict().items())
    played = model.replay_buffer.actions[:20, 0]
    assert played == pytest.approx(actions_of(model.reference.actor, model.replay_buffer, slice(20)), abs=1e-5)
    # More offline training makes another policy
    model.learn(5, offline=True)
    assert int(model.reference.stage) == UNSET


def test_an_actor_of_the_users_own_is_kept():
    model = line_model()
    with th.no_grad():
        model.policy.actor.mu.bias.fill_(0.7)
    model.learn(20)
    assert same(model.reference.actor, model.policy.actor) and int(model.reference.stage) == PLAYS


def test_other_demonstrations_are_another_reference():
    model = line_model().learn(30)
    assert model.reference.is_set
    model.set_expert_data([back_and_forth()])
    assert model.reference.is_set
    model.set_expert_data([back_and_forth(10)])
    assert not model.reference.is_set


@pytest.mark.parametrize(
    "settings", [dict(bc_coef=0.0), dict(preset="paper"), dict(reward_prior=0.0), dict(expert_actions="policy")]
)
def test_where_nothing_is_cloned_there_is_none(settings):
    model = line_model(**settings).learn(30)
    assert int(model.reference.stage) == UNSET and not model.reference.holds
    # Random actions, as SAC begins with
    assert len(np.unique(model.replay_buffer.actions[:20, 0])) == 20


@pytest.mark.parametrize("policy, space, actions", [("CnnPolicy", IMAGE, WIDE_BOX), ("MultiInputPolicy", DICT, WIDE_BOX)])
def test_images_have_none(policy, space, actions):
    assert make_model(policy, space, actions).reference is None


def test_discrete_actions_have_none():
    assert make_model("MlpPolicy", BOX, DISCRETE).reference is None


@pytest.mark.parametrize("n_envs, steps", [(1, 15), (1, 40), (3, 60)])
def test_it_is_saved(tmp_path, n_envs, steps):
    model = line_model(n_envs).learn(steps)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", env=model.get_env(), expert_data=[back_and_forth()], device="cpu")
    assert same(loaded.reference, model.reference)
    stage = int(loaded.reference.stage)
    loaded.learn(n_envs, reset_num_timesteps=False)
    assert int(loaded.reference.stage) >= stage


def test_action_noise_is_added_to_what_it_plays():
    class Noise:
        def __call__(self):
            return np.full((1, 1), 5.0)

        def reset(self, *args):
            pass

    model = line_model(action_noise=Noise()).learn(10)
    assert (model.replay_buffer.actions[:10] == 1).all()


def test_the_reference_is_of_this_seed(monkeypatch):
    """The clone takes no random numbers of the run: the policy's are the same however long it is trained."""
    monkeypatch.setattr(reference_policy, "ENOUGH", 2.0)
    ends = []
    for n_steps in (1, 5):
        monkeypatch.setattr(reference_policy, "CLONING_STEPS", n_steps)
        model = make_model("MlpPolicy", BOX, WIDE_BOX, env_class=RandomEnv)
        model.learn(5)
        ends.append((th.rand(1), model.expert_rng.random()))
    assert ends[0] == ends[1]


def test_far_observations_do_not_stop_it():
    """Where demonstrations are unlike the environment, the clone earns too little."""
    env = RandomEnv(FAR, WIDE_BOX)
    near = random_trajectories(RandomEnv(BOX, WIDE_BOX))
    model = IQLearn("MlpPolicy", env, near, learning_starts=10, batch_size=8, seed=0, device="cpu").learn(20)
    assert int(model.reference.stage) == JUDGED and float(model.reference.share) < ENOUGH
