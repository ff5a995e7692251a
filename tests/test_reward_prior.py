"""The prior of rewards: by the distance to the demonstrations, or with discrete actions the log-likelihood of a clone."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn import batches
from sb3_iq.iq_learn.reward_prior import HALF_WAY, MAX_SIZE, MIN_ACTION_STD, MIN_LOG_LIKELIHOOD, ClonePrior, reward_prior_of
from tests.utils import RandomEnv, random_trajectories

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
DISCRETE = spaces.Discrete(3)
OBSERVATIONS: dict[str, list[spaces.Space]] = {
    "MlpPolicy": [spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(4), spaces.MultiBinary(3)],
    "MultiInputPolicy": [spaces.Dict(a=spaces.Box(-1.0, 1.0, (3,), np.float32), b=spaces.Discrete(4))],
}


def make(observation_space, action_space, policy="MlpPolicy", **kwargs):
    env = RandomEnv(observation_space, action_space)
    options = dict(learning_starts=8, batch_size=8, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]), reward_prior=2.0)
    return IQLearn(policy, env, random_trajectories(env, seed=1), **{**options, **kwargs})


def test_hand_computed_prior():
    """One observed number that varies (std 2), one that is constant, one action: D = 3."""
    trajectory = Trajectory(
        np.array([[1.0, 5.0], [5.0, 5.0], [1.0, 5.0]], np.float32), np.array([[0.5], [-0.5]], np.float32), None, False, True
    )
    space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    env = RandomEnv(space, spaces.Box(-1.0, 1.0, (1,), np.float32))
    model = IQLearn("MlpPolicy", env, [trajectory], learning_starts=8, seed=0, reward_prior=1.5).learn(1)
    prior = model.prior
    assert prior is not None
    batch = model.expert_buffer.all()
    assert prior(batch).tolist() == pytest.approx([1.5, 1.5])
    # a standard deviation of the first, a tenth of a unit of the constant one, an action as it was
    obs = th.tensor([[1.0 - 2.0, 5.0], [5.0, 5.1], [5.0, 1e6]])
    actions = th.tensor([[0.5], [-0.5], [-0.5]])
    distances = np.array([1.0, 0.1, MAX_SIZE])
    far = prior(batch._replace(observations=obs, actions=actions))
    assert far.tolist() == pytest.approx((1.5 / (1 + distances / (HALF_WAY * 3**0.5))).tolist(), rel=1e-4)
    moved = prior(batch._replace(actions=batch.actions + 0.5 + MIN_ACTION_STD))
    assert moved.max() == pytest.approx(1.5 / (1 + 1 / (HALF_WAY * 3**0.5)), rel=1e-4)


def line(n):
    """An episode that walks along a line, each step longer than the last."""
    obs = np.cumsum(np.arange(n + 1, dtype=np.float32))[:, None]
    return Trajectory(obs, np.zeros((n, 1), np.float32), None, False, True)


def test_demonstrations_are_rated_by_their_other_transitions():
    """In time, five steps to either side don't count; another episode counts whatever its steps."""
    env = RandomEnv(spaces.Box(-1e3, 1e3, (1,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32))
    episodes = [line(20), line(20)]
    episodes[1].obs[:] += 0.5
    for n_episodes in (1, 2):
        model = IQLearn("MlpPolicy", env, episodes[:n_episodes], learning_starts=8, seed=0).learn(1)
        batch = model.expert_buffer.all()
        x = batch.observations[:, 0].numpy()
        distances = np.abs(x[:, None] - x) / x.std()
        episode, step = np.divmod(np.arange(len(x)), 20)
        distances[(episode[:, None] == episode) & (np.abs(step[:, None] - step) <= 5)] = np.inf
        expected = 1 / (1 + distances.min(axis=1) / (HALF_WAY * 2**0.5))
        assert model.prior.of_expert(batch).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
        assert model.prior(batch).tolist() == pytest.approx([1.0] * len(x), abs=1e-3)


def test_a_demonstration_of_a_few_steps_has_no_other_transitions():
    env = RandomEnv(spaces.Box(-1e3, 1e3, (1,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32))
    model = IQLearn("MlpPolicy", env, [line(4)], learning_starts=8, seed=0, reward_prior=1.5).learn(1)
    assert model.prior.of_expert(model.expert_buffer.all()).tolist() == [1.5] * 4


@pytest.mark.parametrize(
    "policy, observation_space", [(policy, space) for policy, listed in OBSERVATIONS.items() for space in listed]
)
@pytest.mark.parametrize("action_space", [BOX, spaces.Discrete(3)])
@pytest.mark.parametrize("expert_actions", ["given", "policy"])
def test_prior_of_all_spaces(policy, observation_space, action_space, expert_actions):
    model = make(observation_space, action_space, policy, expert_actions=expert_actions).learn(20)
    batch = batches.sample(model, 8, "expert_bounded")
    height = 2
    assert batch.reward_prior.shape == (16,)
    if isinstance(action_space, spaces.Discrete) and expert_actions == "given":
        assert (batch.reward_prior < 0).all() and (batch.reward_prior >= height * MIN_LOG_LIKELIHOOD).all()
        return
    assert (batch.reward_prior[:8] > 0).all() and (batch.reward_prior[:8] <= height).all()
    assert (batch.reward_prior > 0).all() and (batch.reward_prior <= height + 1e-6).all()
    if isinstance(action_space, spaces.Box) and expert_actions == "given":
        assert (batch.reward_prior[8:] < height).all()


def test_actions_count_where_they_are_read():
    for expert_actions, counts in (("given", True), ("policy", False)):
        model = make(BOX, BOX, expert_actions=expert_actions).learn(9)
        batch = model.expert_buffer.all()
        other = batch._replace(actions=-batch.actions)
        assert th.allclose(model.prior(batch), model.prior(other)) is not counts


def test_where_there_is_no_prior():
    image = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    both = spaces.Dict(image=image, vector=BOX)
    for policy, space in (("CnnPolicy", image), ("MultiInputPolicy", both)):
        for action_space, expert_actions in ((BOX, "given"), (DISCRETE, "policy")):
            assert make(space, action_space, policy, reward_prior=None, expert_actions=expert_actions).reward_prior == 0
            with pytest.raises(ValueError, match=r"`reward_prior` is 2\.0: the distance of two images"):
                make(space, action_space, policy, expert_actions=expert_actions)
    with pytest.raises(ValueError, match=r"`reward_prior` is -1\.0: it must be finite and not negative"):
        make(BOX, BOX, reward_prior=-1.0)
    assert make(BOX, BOX, reward_prior=None).reward_prior > 0
    # Offline it would be a constant
    model = make(BOX, BOX, offline=True).learn(2)
    assert model.prior is None
    model.set_env(RandomEnv(BOX, BOX))
    model.offline = False
    assert model.learn(9).prior is not None


def test_prior_follows_the_statistics_of_vec_normalize():
    env = RandomEnv(BOX, BOX)
    model = IQLearn(
        "MlpPolicy",
        VecNormalize(DummyVecEnv([lambda: env])),
        random_trajectories(env),
        learning_starts=5,
        batch_size=4,
        seed=0,
        train_freq=1,
        policy_kwargs=dict(net_arch=[8]),
        device="cpu",
    ).learn(5)
    before = model.prior
    model.learn(110, reset_num_timesteps=False)
    expected = reward_prior_of(model)
    assert before is not model.prior
    batch = model.expert_buffer.sample(32, env=model.get_vec_normalize_env())
    assert th.allclose(model.prior(batch), expected(batch), rtol=0.2)


@pytest.mark.parametrize("policy, space", [("MlpPolicy", BOX), ("CnnPolicy", spaces.Box(0, 255, (36, 36, 1), np.uint8))])
def test_prior_by_a_clone(policy, space):
    """The log-likelihood of a clone, which knows the expert's actions, with the demonstrations' own as well."""
    model = make(space, DISCRETE, policy, reward_prior=None, policy_kwargs=dict(net_arch=[64, 64])).learn(9)
    assert model.reward_prior == 1 and isinstance(model.prior, ClonePrior)
    expert = model.expert_buffer.all()
    log_likelihood = th.log_softmax(model.prior.network(expert.observations), dim=1)
    for shift in range(3):
        actions = (expert.actions + shift) % 3
        expected = log_likelihood.gather(1, actions).squeeze(1).clamp(min=MIN_LOG_LIKELIHOOD)
        assert th.allclose(model.prior(expert._replace(actions=actions)), expected, atol=1e-5)
    assert th.equal(model.prior.of_expert(expert), model.prior(expert))
    # Random actions at random states are learned by heart, as far as so few steps do
    others = th.cat([model.prior(expert._replace(actions=(expert.actions + shift) % 3)) for shift in (1, 2)])
    assert model.prior(expert).mean() > others.mean() + 0.2


def test_cloning_for_the_prior_leaves_the_run_alone():
    model = make(BOX, DISCRETE).learn(9)
    torch_state, expert_state = th.get_rng_state(), model.expert_buffer.rng.bit_generator.state
    parameters = [parameter.clone() for parameter in model.policy.parameters()]
    again = reward_prior_of(model)
    assert th.equal(torch_state, th.get_rng_state()) and expert_state == model.expert_buffer.rng.bit_generator.state
    assert all(map(th.equal, parameters, model.policy.parameters()))
    batch = model.expert_buffer.all()
    assert th.equal(again(batch), model.prior(batch))


@pytest.mark.parametrize("action_space", [BOX, DISCRETE])
def test_prior_is_made_again_while_the_statistics_of_vec_normalize_change(action_space, monkeypatch):
    made = []

    def count(model):
        made.append(model._n_updates + 1)
        return reward_prior_of(model)

    monkeypatch.setattr("sb3_iq.iq_learn.iq_learn.reward_prior_of", count)
    monkeypatch.setattr("sb3_iq.iq_learn.iq_learn.UPDATE_INTERVAL", 4)
    env = RandomEnv(BOX, action_space)
    options = dict(learning_starts=4, batch_size=4, seed=0, train_freq=1, policy_kwargs=dict(net_arch=[8]), device="cpu")
    for vec_env, expected in ((VecNormalize(DummyVecEnv([lambda: env])), [1, 5, 9, 17]), (env, [1])):
        made.clear()
        IQLearn("MlpPolicy", vec_env, random_trajectories(env), **options).learn(35)
        assert made == expected


def test_prior_of_many_demonstrations_is_of_some(monkeypatch):
    monkeypatch.setattr("sb3_iq.iq_learn.reward_prior.MAX_TRANSITIONS", 7)
    model = make(BOX, BOX).learn(9)
    assert model.expert_buffer.size() > 7
    assert len(model.prior.expert) == 7


@pytest.mark.parametrize("action_space", [BOX, DISCRETE])
def test_prior_is_not_saved(action_space, tmp_path):
    model = make(BOX, action_space).learn(9)
    model.save(tmp_path / "model")
    demonstrations = random_trajectories(RandomEnv(BOX, action_space), seed=1)
    loaded = IQLearn.load(tmp_path / "model", env=model.env, expert_data=demonstrations)
    assert loaded.prior is None and loaded.reward_prior == 2.0
    loaded.learn(9)
    batch = model.expert_buffer.all()
    assert th.allclose(model.prior(batch), loaded.prior(batch))


def test_prior_of_an_offline_solution_is_the_reward_it_stands_for():
    model = make(BOX, DISCRETE, keep_solution=True, reward_prior=1.0, offline=True).learn(20)
    obs, actions = np.zeros((4, 2), np.float32), np.arange(4) % 3
    expected = model.predict_reward(obs, actions, obs + 0.5, np.zeros(4, bool))
    model.offline = False
    model.set_env(RandomEnv(BOX, DISCRETE))
    model.learn(20)
    batch = model.expert_buffer.all()
    samples = batch._replace(
        observations=th.tensor(obs),
        actions=th.tensor(actions)[:, None],
        next_observations=th.tensor(obs + 0.5),
        dones=th.zeros(4, 1),
    )
    assert model.prior(samples).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    prior = model.prior
    assert model.learn(20, reset_num_timesteps=False).prior is prior


@pytest.mark.parametrize("trained", [False, True])
def test_a_trained_policy_takes_no_random_steps(trained, monkeypatch):
    model = make(BOX, DISCRETE, offline=True).learn(20 if trained else 1)
    if not trained:
        model._n_updates = 0
    model.offline = False
    model.set_env(RandomEnv(BOX, DISCRETE))
    monkeypatch.setattr(model.action_space, "sample", lambda: pytest.fail("a random step") if trained else 0)
    model.learn(6)


def test_online_learning_begins_with_offline_training(monkeypatch):
    """The same network as after offline training alone, and the prior is its reward."""
    options = dict(keep_solution=True, reward_prior=1.0)
    offline = make(BOX, DISCRETE, offline=True, **options).learn(250)
    model = make(BOX, DISCRETE, offline_steps=250, **options)
    monkeypatch.setattr(model.action_space, "sample", lambda: pytest.fail("a random step"))
    model.learn(6)
    assert model._n_updates == 250 and model.num_timesteps == 6
    for mine, other in zip(model.policy.q_net.parameters(), offline.policy.q_net.parameters(), strict=True):
        assert th.equal(mine, other)
    batch = model.expert_buffer.all()
    arrays = [tensor.numpy() for tensor in (batch.observations, batch.actions[:, 0], batch.next_observations)]
    ended = batch.dones[:, 0].numpy() > 0
    rewards = offline.predict_reward(*arrays, ended)
    # Online an end repeats for ever, of which Q(s, a) is the value
    rewards[ended] *= 1 - model.gamma
    assert model.prior(batch).tolist() == pytest.approx(rewards.tolist(), abs=1e-4)
    assert not model.offline
