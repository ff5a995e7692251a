"""The penalty of steep values."""

import pytest
import torch as th
from gymnasium import spaces

from sb3_iq.iq_learn.gradient_penalty import distance_to_nearest, gradient_penalty, sample_weights
from tests.utils import BOX, COMBINATIONS, DISCRETE, WIDE_BOX, make_model, sample_batch


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    return make_model(policy, observation_space, action_space, **{"policy_kwargs": dict(net_arch=[16]), **kwargs})


@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_gradient_penalty_of_all_spaces(policy, observation_space, action_space):
    options = dict(objective_kwargs=dict(gradient_penalty=1.0))
    if "Box" not in str(observation_space) + str(action_space):
        with pytest.raises(ValueError, match="cannot be interpolated"):
            make(observation_space, action_space, policy, **options)
        return
    model = make(observation_space, action_space, policy, **options).learn(14, log_interval=None)
    assert dict(model.logger.name_to_value)["train/gradient_penalty"] >= 0


def test_the_nearest_other_point():
    """Points on a line at 0, 0 (drawn twice), 0.5, 3 and 9: distances of 0.5, 0.5, 0.5, 2.5, and no more than sqrt(d)."""
    points = th.tensor([0.0, 0.0, 0.5, 3.0, 9.0])
    line = 1000 + th.stack([points] + 15 * [th.zeros(5)], dim=1)
    distances = distance_to_nearest(line, th.tensor([4, 3, 2, 1, 0]))
    assert distances.tolist() == pytest.approx([4.0, 2.5, 0.5, 0.5, 0.5])
    assert distance_to_nearest(line[:1], th.tensor([0])).tolist() == pytest.approx([4.0])


def test_gradient_penalty_is_that_of_a_linear_critic():
    """Of Q = w x the gradient is w everywhere, in standard deviations w std, beside a K for each row."""
    for normalize_obs in (True, False):
        model = make(policy_kwargs=dict(net_arch=[], normalize_obs=normalize_obs), offline=True)
        batch = sample_batch(model.learn(1))
        std = model.policy.normalizer.units()["obs"]
        bound, rows = 200.0, th.arange(0, len(batch.actions), 4)
        steepest = bound / distance_to_nearest(batch.expert_obs / std, rows)
        for steepness in (3.0, 1.0, 0.1):
            # The network's own inputs are standardised already
            weight = steepness * steepest.mean() * th.tensor([0.6, 0.8, 0.0])
            expected = (steepness * steepest.mean() / steepest - 1).clamp(min=0).square().mean()
            with th.no_grad():
                model.q_net.q_net[0].weight.copy_((weight * (1 if normalize_obs else 1 / std)).expand(3, 3))
            weights = sample_weights(len(batch.actions), batch.actions.device)
            penalty = gradient_penalty(model.policy, batch.obs, batch.actions, batch.n_expert, weights, bound)
            assert penalty.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_gradient_penalty_of_actions_alone():
    """Observations that are classes have no gradient; Box actions have."""
    model = make(spaces.Discrete(5), WIDE_BOX, objective_kwargs=dict(gradient_penalty=1.0)).learn(14, log_interval=None)
    assert dict(model.logger.name_to_value)["train/gradient_penalty"] >= 0


@pytest.mark.parametrize("n_expert, n_policy", [(8, 8), (4, 12), (12, 4)])
def test_it_is_between_the_expert_and_the_policy(n_expert, n_policy):
    """A critic that is steep only between the two: all rows see it, whatever the sizes of both parts."""
    model = make(policy_kwargs=dict(net_arch=[], normalize_obs=False), offline=True).learn(1)
    is_policy = th.arange(n_expert + n_policy) >= n_expert
    obs = is_policy[:, None].float().expand(-1, 3).contiguous()
    seen = []
    model.policy.q_net.q_net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    actions = th.zeros(len(obs), 1, dtype=th.int64)
    weights = th.full((len(range(0, len(obs), 4)),), 0.5)
    gradient_penalty(model.policy, obs, actions, n_expert, weights, 200.0)
    assert th.equal(seen[0], th.full((len(weights), 3), 0.5))
