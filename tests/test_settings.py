"""Combinations of settings: refused with a reason, or finite."""

import random
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.iq_learn import losses
from tests.utils import BOX, COMBINATIONS, DICT, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    env = RandomEnv(observation_space, action_space)
    kwargs.setdefault("policy_kwargs", dict(net_arch=[16]))
    return IQLearn(policy, env, random_trajectories(env), **{**SMALL, **kwargs})


def logged(model):
    """:return: the keys of one more gradient step"""
    model.train(1, model.batch_size)
    return set(model.logger.name_to_value)


def literals():
    """:return: for each argument that is one of several names, these names, and None where that is allowed"""
    found = {}
    for name, hint in get_type_hints(IQLearn.__init__).items():
        options = [hint, *get_args(hint)]
        values = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
        if values:
            found[name] = values + ([None] if type(None) in get_args(hint) else [])
    return found


@pytest.mark.parametrize("seed", range(40))
def test_random_settings(seed):
    rng = random.Random(seed)
    settings = {name: rng.choice(values) for name, values in literals().items()}
    settings |= {"offline": rng.random() < 0.4, "ent_coef": rng.choice([None, 0.01, 1.0, "auto_0.1"])}
    settings |= {"gradient_penalty": rng.choice([None, 10.0]), "use_target": rng.choice([None, True, False])}
    settings |= {"obs_noise": rng.choice([None, 0.0, 1.0]), "reward_prior": rng.choice([None, 0.0, 1.0])}
    action_space = rng.choice([DISCRETE, WIDE_BOX])
    try:
        model = make(BOX, action_space, **settings).learn(200)
    except ValueError as error:
        assert "`" in str(error) and any(word in str(error) for word in ("Use", "use", "which only"))
        return
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_the_literals_are_found():
    assert {"preset", "divergence", "occupancy_term", "penalty", "terminal_value", "critic_bound"} <= set(literals())
    assert {"expert_target", "expert_actions"} <= set(literals())


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(divergence="total_variation"), "`divergence` is 'total_variation': .* Use critic_bound='tanh'"),
        (dict(divergence="wasserstein"), "`divergence` is 'wasserstein': .* Use gradient_penalty=10"),
        (dict(expert_target="fixed", penalty="expert"), "`expert_target` is 'fixed': .*least squares"),
        (dict(expert_target="fixed", divergence="reverse_kl"), "`expert_target` is 'fixed': .*least squares"),
        (dict(offline=True, occupancy_term="policy"), "`occupancy_term` is 'policy': offline there are no transitions"),
        (dict(offline=True, expert_actions="inverse_dynamics"), "`expert_actions` is 'inverse_dynamics': offline"),
        (dict(expert_actions="policy", pretrain_steps=5), "`expert_actions` is 'policy': .* clone the expert's actions"),
        (dict(expert_actions="policy", bc_coef=0.1), "`expert_actions` is 'policy': .* clone the expert's actions"),
        (dict(policy_delay=0), "`policy_delay` is 0: give an integer of at least 1"),
        (dict(pretrain_steps=-1), "`pretrain_steps` is -1"),
        (dict(replay_window=0), "`replay_window` is 0"),
        (dict(gradient_penalty=-1.0), "`gradient_penalty` is -1.0: it must be finite and not negative"),
        (dict(obs_noise=-0.1), "`obs_noise` is -0.1: it must be finite and not negative"),
        (dict(obs_noise=abs), "`obs_noise` is <built-in function abs>: it must be finite"),
        (dict(actor_tau=0.0), "`actor_tau` is 0.0"),
        (dict(terminal_value="none"), "`terminal_value` is 'none': choose one of zero, absorbing"),
        (dict(critic_bound="relu"), "`critic_bound` is 'relu': choose one of none, clip, tanh"),
        (dict(expert_actions="mine"), "`expert_actions` is 'mine': choose one of given, policy, inverse_dynamics"),
    ],
)
def test_refused_with_the_reason(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_gradient_penalty_of_all_spaces(policy, observation_space, action_space):
    options = dict(gradient_penalty=1.0)
    if "Box" not in str(observation_space) + str(action_space):
        with pytest.raises(ValueError, match="cannot be interpolated"):
            make(observation_space, action_space, policy, **options)
        return
    model = make(observation_space, action_space, policy, **options).learn(14)
    assert model.logger.name_to_value["train/gradient_penalty"] >= 0


def test_the_nearest_other_point():
    """Points on a line at 0, 0 (drawn twice), 0.5, 3 and 9: distances of 0.5, 0.5, 0.5, 2.5, and no more than sqrt(d)."""
    points = th.tensor([0.0, 0.0, 0.5, 3.0, 9.0])
    line = 1000 + th.stack([points] + 15 * [th.zeros(5)], dim=1)
    distances = losses.distance_to_nearest(line, th.tensor([4, 3, 2, 1, 0]))
    assert distances.tolist() == pytest.approx([4.0, 2.5, 0.5, 0.5, 0.5])
    assert losses.distance_to_nearest(line[:1], th.tensor([0])).tolist() == pytest.approx([4.0])


def test_gradient_penalty_is_that_of_a_linear_critic():
    """Of Q = w x the gradient is w everywhere, in standard deviations w std, beside a K for each row."""
    for normalize_obs in (True, False):
        model = make(policy_kwargs=dict(net_arch=[], normalize_obs=normalize_obs), offline=True)
        batch = model.learn(1) and make_batch(model)
        std = model.policy.normalizer.units()["obs"]
        bound, rows = 200.0, th.arange(0, len(batch.actions), 4)
        steepest = bound / losses.distance_to_nearest(batch.expert_obs / std, rows)
        for steepness in (3.0, 1.0, 0.1):
            # The network's own inputs are standardised already
            weight = steepness * steepest.mean() * th.tensor([0.6, 0.8, 0.0])
            expected = (steepness * steepest.mean() / steepest - 1).clamp(min=0).square().mean()
            with th.no_grad():
                model.q_net.q_net[0].weight.copy_((weight * (1 if normalize_obs else 1 / std)).expand(3, 3))
            penalty = losses.gradient_penalty(model.policy, batch, bound)
            assert penalty.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_gradient_penalty_of_actions_alone():
    """Observations that are classes have no gradient; Box actions have."""
    model = make(spaces.Discrete(5), WIDE_BOX, gradient_penalty=1.0).learn(14)
    assert model.logger.name_to_value["train/gradient_penalty"] >= 0


def make_batch(model):
    from sb3_iq.iq_learn import batches

    return batches.sample(model, 8, "expert")


def test_tanh_bounds_every_value():
    # (|r_0| + 1 / c) / (1 - gamma), and the default's prior is at most 1 with Box actions, 5 with discrete ones
    for action_space, bound in ((DISCRETE, 11.0), (WIDE_BOX, 3.0)):
        model = make(BOX, action_space, critic_bound="tanh", penalty_coef=2.0, gamma=0.5).learn(60)
        assert model.policy.q_bound == pytest.approx(bound)
        assert max(abs(model.logger.name_to_value[f"train/{name}"]) for name in ("q_min", "q_max")) <= bound


def test_clip_bounds_the_target_all_through_training():
    """Q and what it bootstraps from stay within 1 / (c (1 - gamma)), whatever the learning rate does to the target network."""
    model = make(BOX, DISCRETE, preset="ls-iq", learning_rate=1e-2, gamma=0.9)
    bound, sizes = 1 / (0.5 * 0.1), []
    for _ in range(30):
        model.learn(10, reset_num_timesteps=False)
        values = model.logger.name_to_value
        if "train/q_max" in values:
            # A regression of Q overshoots its target a little
            sizes.append(max(abs(values["train/q_min"]), values["train/q_max"]))
            assert 0 <= values["train/clip_fraction"] <= 1
    assert len(sizes) > 20 and max(sizes) < 1.2 * bound


def test_replay_window():
    from sb3_iq.iq_learn import replay

    model = make(replay_window=7).learn(60)
    newest = model.replay_buffer.observations[model.replay_buffer.pos - 7 : model.replay_buffer.pos, 0]
    drawn = replay.sample(model, 200).observations.numpy()
    assert all((newest == row).all(axis=1).any() for row in drawn)
    assert len(np.unique(drawn, axis=0)) == 7


def test_critics():
    for aggregation in ("min", "mean"):
        model = make(BOX, WIDE_BOX, policy_kwargs=dict(net_arch=[8], n_critics=3, critic_aggregation=aggregation)).learn(20)
        obs, actions = th.rand(5, 3), th.rand(5, 2)
        q_values = model.policy.q_values(obs, actions)
        assert q_values.shape == (3, 5)
        expected = q_values.min(dim=0).values if aggregation == "min" else q_values.mean(dim=0)
        assert th.equal(model.policy.aggregate(q_values), expected)
    with pytest.raises(ValueError, match="`critic_aggregation` is 'max'"):
        make(BOX, WIDE_BOX, policy_kwargs=dict(critic_aggregation="max"))


def test_policy_delay():
    model = make(BOX, WIDE_BOX, policy_delay=4, pretrain_steps=0)
    before = None
    changed = []
    for _ in range(30):
        model.learn(1, reset_num_timesteps=False)
        now = model.actor.mu.weight.detach().clone()
        if before is not None and model._n_updates > 0:
            changed.append((model._n_updates, not th.equal(now, before)))
        before = now
    assert all(moved == ((n_updates - 1) % 4 == 0) for n_updates, moved in changed) and len(changed) > 15


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
        model = IQLearn(policy, env, trajectories, **options).learn(14)
        parameters.append(th.cat([parameter.flatten() for parameter in model.policy.parameters()]))
        assert not any("expert_log" in key or "bc_" in key for key in logged(model))
    assert th.equal(*parameters)


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

    import gymnasium as gym

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


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_pretraining_clones_the_expert(action_space):
    model = make(BOX, action_space, pretrain_steps=300, learning_rate=1e-3, actor_learning_rate=1e-3, learning_starts=1000)
    expert = model.expert_buffer.all()
    before = model.policy.cloning_loss(expert.observations, expert.actions)
    model.learn(5)
    assert model.policy.cloning_loss(expert.observations, expert.actions) < 0.8 * before
    after = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(5, reset_num_timesteps=False)  # it happens once; and steps below learning_starts learn nothing
    assert all(th.equal(a, b) for a, b in zip(after, model.policy.parameters(), strict=True)) or model._n_updates == 0


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_cloning_term(action_space, offline):
    options = dict(occupancy_term="expert" if offline else "start_states", learning_rate=3e-3, actor_learning_rate=3e-3)
    errors = []
    for bc_coef in (0.0, 10.0, lambda progress: 10.0):
        model = make(BOX, action_space, bc_coef=bc_coef, offline=offline, **options).learn(400)
        expert = model.expert_buffer.all()
        errors.append(model.policy.cloning_loss(expert.observations, expert.actions).item())
        assert ("train/bc_loss" in logged(model)) == (bc_coef != 0.0)
    assert max(errors[1:]) < errors[0]


def test_cloning_term_follows_its_schedule():
    from sb3_iq.iq_learn.cloning import coefficient

    for bc_coef, expected in ((0.2, [0.2, 0.2]), (lambda progress: progress**2, [0.25, 0.0])):
        model = make(bc_coef=bc_coef)
        found = []
        for model._current_progress_remaining in (0.5, 0.0):
            found.append(coefficient(model))
        assert found == expected


@pytest.mark.parametrize("action_space, expected", [(DISCRETE, [0.1, 0.0]), (WIDE_BOX, [1.0, 1.0])])
def test_cloning_term_of_the_default(action_space, expected):
    """Offline, the objective of discrete actions has the log-likelihood already; without actions there is none."""
    from sb3_iq.iq_learn.cloning import coefficient

    model = make(BOX, action_space)
    found = []
    for model.offline in (False, True):
        found.append(coefficient(model))
    assert found == expected
    assert coefficient(make(BOX, action_space, expert_actions="policy")) == 0.0
    assert coefficient(make(BOX, action_space, preset="paper")) == 0.0
