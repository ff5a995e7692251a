"""The priors of rewards: by the distance to the demonstrations, or with discrete actions that of the offline solution."""

import re

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn import reward_priors
from sb3_iq.iq_learn.normalization import MAX_MAGNITUDE
from sb3_iq.iq_learn.reward_priors import HALF_WAY, MAX_REWARD, MIN_ACTION_STD, SolutionPrior
from tests.utils import RandomEnv, random_trajectories, sample_batch

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
    distances = np.array([1.0, 0.1, MAX_MAGNITUDE])
    far = prior(batch._replace(observations=obs, actions=actions))
    assert far.tolist() == pytest.approx((1.5 / (1 + distances / (HALF_WAY * 3**0.5))).tolist(), rel=1e-4)
    moved = prior(batch._replace(actions=batch.actions + 0.5 + MIN_ACTION_STD))
    assert moved.max() == pytest.approx(1.5 / (1 + 1 / (HALF_WAY * 3**0.5)), rel=1e-4)


def test_expert_rows_leave_themselves_out():
    """Each is as far as the nearest transition of another episode; of one episode, the nearest more than five steps away."""
    steps = np.arange(13, dtype=np.float32)
    # A ramp, of which six steps are the nearest others, and an episode beside its first steps
    ramp = Trajectory(np.stack([steps, 0 * steps], 1), np.zeros((12, 1), np.float32), None, False, True)
    beside = Trajectory(np.array([[0.0, 3.0], [1.0, 3.0]], np.float32), np.zeros((1, 1), np.float32), None, False, True)
    space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    env = RandomEnv(space, spaces.Box(-1.0, 1.0, (1,), np.float32))
    for episodes, others in (([ramp, beside], lambda i, j: (i == 12) != (j == 12)), ([ramp], lambda i, j: abs(i - j) > 5)):
        model = IQLearn("MlpPolicy", env, episodes, learning_starts=8, seed=0).learn(1)
        expert = model.expert_buffer.all()
        std = expert.observations.std(dim=0, unbiased=False).numpy()
        points = expert.observations.numpy() / np.where(std == 0, 1, std)
        rows = range(len(points))
        nearest = [min(np.linalg.norm(points[i] - points[j]) for j in rows if others(i, j)) for i in rows]
        expected = 1 / (1 + np.array(nearest) / (HALF_WAY * 3**0.5))
        assert model.prior.of_expert(expert).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    # A transition alone has no other
    alone = IQLearn("MlpPolicy", env, [beside], learning_starts=8, seed=0).learn(1)
    assert alone.prior.of_expert(alone.expert_buffer.all()).tolist() == [1.0]


@pytest.mark.parametrize(
    "policy, observation_space", [(policy, space) for policy, listed in OBSERVATIONS.items() for space in listed]
)
@pytest.mark.parametrize("action_space", [BOX, spaces.Discrete(3)])
@pytest.mark.parametrize("expert_actions", ["given", "policy"])
def test_prior_of_all_spaces(policy, observation_space, action_space, expert_actions):
    model = make(observation_space, action_space, policy, expert_actions=expert_actions).learn(20)
    batch = sample_batch(model, 8)
    height = 2
    assert batch.reward_prior.shape == (batch.n_expert + 8,)
    if isinstance(action_space, spaces.Discrete) and expert_actions == "given":
        assert batch.reward_prior.isfinite().all() and (batch.reward_prior.abs() <= height * MAX_REWARD).all()
        return
    assert (batch.reward_prior > 0).all() and (batch.reward_prior <= height + 1e-6).all()
    if isinstance(action_space, spaces.Box) and expert_actions == "given":
        assert (batch.reward_prior < height).all()


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


@pytest.mark.slow
@pytest.mark.both_stacks
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
    latest = model.prior
    model._make_prior()
    expected = model.prior
    assert before is not latest
    batch = model.expert_buffer.sample(32, env=model.get_vec_normalize_env())
    assert th.allclose(latest(batch), expected(batch), rtol=0.2)


@pytest.mark.parametrize(
    "policy, space, actions",
    [
        ("MlpPolicy", BOX, DISCRETE),
        ("MlpPolicy", BOX, spaces.MultiDiscrete([3, 2])),
        ("CnnPolicy", spaces.Box(0, 255, (36, 36, 1), np.uint8), DISCRETE),
    ],
)
def test_prior_by_the_offline_solution(policy, space, actions):
    """The reward that the offline solution stands for, which the policy starts from; an end repeats its own for ever."""
    model = make(space, actions, policy, reward_prior=None, learning_starts=100, policy_kwargs=dict(net_arch=[64, 64]))
    model.learn(9)
    assert model.reward_prior == 1 and isinstance(model.prior, SolutionPrior)
    for mine, solution in zip(model.policy.q_net.parameters(), model.prior.policy.q_net.parameters(), strict=True):
        assert th.equal(mine, solution)
    expert = model.expert_buffer.all()
    arrays = [values.numpy() for values in (expert.observations, expert.actions, expert.next_observations)]
    ended = expert.dones.numpy().flatten() > 0
    assert ended.any()
    expected = model.predict_reward(*arrays, ended)
    with th.no_grad():
        q_values = model.policy.q_values(expert.observations, expert.actions)[0].numpy()
    expected[ended] = (1 - model.gamma) * q_values[ended]
    assert model.prior(expert).numpy() == pytest.approx(expected, abs=1e-5)
    assert th.equal(model.prior.of_expert(expert), model.prior(expert))


@pytest.mark.slow
def test_the_offline_solution_knows_the_expert(monkeypatch):
    monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 300)
    model = make(BOX, DISCRETE, reward_prior=None, policy_kwargs=dict(net_arch=[64, 64])).learn(9)
    expert = model.expert_buffer.all()
    others = th.cat([model.prior(expert._replace(actions=(expert.actions + shift) % 3)) for shift in (1, 2)])
    assert model.prior(expert).mean() > others.mean()


def test_a_policy_that_starts_trained_takes_no_random_steps(monkeypatch):
    model = make(BOX, DISCRETE, learning_starts=100)
    monkeypatch.setattr(model.action_space, "sample", lambda: pytest.fail("a random step"))
    model.learn(6)
    other = make(BOX, DISCRETE, learning_starts=100, reward_prior=0.0)
    sampled = []
    monkeypatch.setattr(other.action_space, "sample", lambda: sampled.append(1) or 0)
    other.learn(6)
    assert len(sampled) == 6


def test_offline_training_for_the_prior_leaves_the_run_alone():
    model = make(BOX, DISCRETE).learn(9)
    torch_state, expert_state = th.get_rng_state(), model.expert_buffer.rng.bit_generator.state
    parameters = [parameter.clone() for parameter in model.policy.parameters()]
    first = model.prior
    again = type(first)(model._made_prior[0])
    assert th.equal(torch_state, th.get_rng_state()) and expert_state == model.expert_buffer.rng.bit_generator.state
    assert all(map(th.equal, parameters, model.policy.parameters()))
    batch = model.expert_buffer.all()
    assert th.equal(first(batch), again(batch))


@pytest.mark.parametrize("action_space", [BOX, DISCRETE])
def test_prior_is_made_once_for_the_same_demonstrations(action_space):
    model = make(BOX, action_space).learn(9)
    first = model.prior
    assert model.learn(9, reset_num_timesteps=False).prior is first
    model.set_expert_data(random_trajectories(RandomEnv(BOX, action_space), seed=2))
    assert model.learn(9, reset_num_timesteps=False).prior is not first


@pytest.mark.slow
@pytest.mark.parametrize("action_space, expected", [(BOX, [0, 101, 201, 301, 401]), (DISCRETE, [0, 101, 201, 401])])
def test_prior_is_made_again_while_the_statistics_of_vec_normalize_change(action_space, expected, monkeypatch):
    """By distance every hundred gradient steps, the offline solution at each doubling; without VecNormalize once."""
    made, make_prior = [], IQLearn._make_prior

    def count(model):
        made.append(model._n_updates)
        make_prior(model)

    monkeypatch.setattr(IQLearn, "_make_prior", count)
    env = RandomEnv(BOX, action_space)
    options = dict(learning_starts=4, batch_size=4, seed=0, train_freq=1, policy_kwargs=dict(net_arch=[8]), device="cpu")
    for vec_env, times in ((VecNormalize(DummyVecEnv([lambda: env])), expected), (env, [0])):
        made.clear()
        IQLearn("MlpPolicy", vec_env, random_trajectories(env), **options).learn(420)
        assert made == times


def test_prior_of_many_demonstrations_is_of_some(monkeypatch):
    monkeypatch.setattr(reward_priors, "MAX_TRANSITIONS", 7)
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


def set_parameters(model, state):
    model.set_parameters({**model.get_parameters(), "policy": state})


def load_state_dict(model, state):
    model.policy.load_state_dict(state)


@pytest.mark.parametrize("give", [set_parameters, load_state_dict])
def test_parameters_that_the_user_sets_stay(give):
    """The offline solution is a start for what nobody has touched; learning begins at random steps then, as in SB3."""
    model = make(BOX, DISCRETE, learning_starts=100)
    state = {name: values + 0.1 if values.dim() else values for name, values in model.policy.state_dict().items()}
    give(model, state)
    model.learn(6)
    assert isinstance(model.prior, SolutionPrior) and not model._starts_trained
    for name, values in model.policy.q_net.state_dict().items():
        assert th.equal(values, state[f"q_net.{name}"])


def test_an_untrained_model_from_a_file_starts_as_if_it_had_not_been_saved(tmp_path):
    make(BOX, DISCRETE, learning_starts=100).save(tmp_path / "model")
    env = RandomEnv(BOX, DISCRETE)
    model = IQLearn.load(tmp_path / "model", env=env, expert_data=random_trajectories(env, seed=1), device="cpu").learn(6)
    assert model._starts_trained
    for mine, solution in zip(model.policy.q_net.parameters(), model.prior.policy.q_net.parameters(), strict=True):
        assert th.equal(mine, solution)
    # Nothing was learned yet: other demonstrations are another start
    model.set_expert_data(random_trajectories(env, seed=2))
    model.learn(6, reset_num_timesteps=False)
    for mine, solution in zip(model.policy.q_net.parameters(), model.prior.policy.q_net.parameters(), strict=True):
        assert th.equal(mine, solution)


class Falling(RandomEnv):
    """Its episodes end after two steps, whatever is done."""

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        self.n_steps = getattr(self, "n_steps", 0) + 1
        return obs, reward, self.n_steps % 2 == 0, False, info


def standing(terminated=False, length=20):
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (length + 1, 3)).astype(np.float32)
    return Trajectory(obs, rng.integers(3, size=length), None, terminated, not terminated)


def make_falling(demonstrations=None, **kwargs):
    options = dict(learning_starts=8, batch_size=8, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
    env = Falling(OBSERVATIONS["MlpPolicy"][0], DISCRETE)
    return IQLearn("MlpPolicy", env, demonstrations or [standing()], **{**options, **kwargs})


def test_a_solution_that_fails_is_given_up(tmp_path, capsys):
    """Nothing holds the policy to it from then on, in a loaded model either; with other demonstrations it is judged anew."""
    model = make_falling(verbose=1)
    assert (model.settings.reward_prior, model.settings.objective.penalty_coef, model.solution_fails) == (1.0, 32.0, None)
    model.learn(20)
    assert (model.settings.reward_prior, model.settings.objective.penalty_coef, model.solution_fails) == (0.0, 0.5, True)
    assert model.prior is None and model.objective.penalty_coef == 0.5 and model.terminal_v == pytest.approx(-100)
    assert "have 10 % of the demonstrations' steps: the reward of the offline solution is given up" in capsys.readouterr().out
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", expert_data=[standing()], env=model.get_env())
    loaded.learn(10, reset_num_timesteps=False)
    assert (loaded.prior, loaded.settings.objective.penalty_coef, loaded.solution_fails) == (None, 0.5, True)
    model.set_expert_data([standing(length=3)])
    assert model.solution_fails is None
    model.learn(10, reset_num_timesteps=False)
    assert (model.settings.reward_prior, model.settings.objective.penalty_coef, model.solution_fails) == (1.0, 32.0, False)
    assert model.prior is not None


@pytest.mark.parametrize(
    ("demonstrations", "kwargs", "expected"),
    [
        ([standing(terminated=True)], {}, (1.0, 32.0)),
        ([standing(length=4)], {}, (1.0, 32.0)),
        (None, {"penalty_coef": 4.0}, (0.0, 4.0)),
        (None, {"reward_prior": 2.0}, (2.0, 0.5)),
    ],
    ids=["demonstrations end", "half as long is enough", "penalty of the user's", "prior of the user's"],
)
def test_what_a_solution_that_ends_early_keeps(demonstrations, kwargs, expected):
    model = make_falling(demonstrations, **kwargs).learn(20)
    assert (model.settings.reward_prior, model.settings.objective.penalty_coef) == expected
    assert (model.prior is None) == (expected[0] == 0)


@pytest.mark.parametrize(("training", "expected"), [(True, 1.0), (False, 0.0)])
def test_a_solution_is_not_judged_while_statistics_change(training, expected):
    env = VecNormalize(DummyVecEnv([lambda: Falling(OBSERVATIONS["MlpPolicy"][0], DISCRETE)]), training=training)
    options = dict(learning_starts=8, batch_size=8, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
    assert IQLearn("MlpPolicy", env, [standing()], **options).learn(20).settings.reward_prior == expected


def test_recordings_without_the_ends_of_episodes_are_as_long_as_an_episode_can_be():
    episode = Trajectory(np.zeros((1_201, 4), np.float32), np.zeros(1_200, int), None, False, False)
    assert IQLearn("MlpPolicy", "CartPole-v1", [episode]).expert_buffer.mean_length == 500


@pytest.mark.parametrize("verbose", [0, 1])
def test_what_takes_time_is_said(verbose, monkeypatch, capsys):
    monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 50)
    make(BOX, DISCRETE, verbose=verbose).learn(6)
    said = r"^Learning the prior of rewards from the demonstrations alone: 50 gradient steps, about \d+ s\.$"
    assert len(re.findall(said, capsys.readouterr().out, re.MULTILINE)) == verbose
