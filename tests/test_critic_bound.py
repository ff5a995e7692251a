"""Q-values are bounded by a tanh, or by clipping what they bootstrap from."""

import pytest
import torch as th

from sb3_iq.iq_learn import updates
from tests.utils import BOX, DISCRETE, WIDE_BOX, make_model, sample_batch


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    return make_model(policy, observation_space, action_space, **{"policy_kwargs": dict(net_arch=[16]), **kwargs})


def test_tanh_bounds_every_value():
    # (|r_0| + 1 / c) / (1 - gamma), and the default's prior is at most 1
    for action_space in (DISCRETE, WIDE_BOX):
        model = make(BOX, action_space, objective_kwargs=dict(critic_bound="tanh"), penalty_coef=2.0, gamma=0.5)
        model.learn(60, log_interval=None)
        assert model.policy.q_bound == pytest.approx(3.0)
        logged = dict(model.logger.name_to_value)
        assert 0 < max(abs(logged[f"train/{name}"]) for name in ("q_min", "q_max")) <= 3.0


@pytest.mark.slow
def test_clip_bounds_the_target_all_through_training():
    """Q and what it bootstraps from stay within 1 / (c (1 - gamma)), whatever the learning rate does to the target network."""
    model = make(BOX, DISCRETE, preset="ls-iq", learning_rate=1e-2, gamma=0.9)
    bound, sizes = 1 / (0.5 * 0.1), []
    for _ in range(30):
        model.learn(10, log_interval=None, reset_num_timesteps=False)
        values = model.logger.name_to_value
        if "train/q_max" in values:
            # A regression of Q overshoots its target a little
            sizes.append(max(abs(values["train/q_min"]), values["train/q_max"]))
            assert 0 <= values["train/clip_fraction"] <= 1
    assert len(sizes) > 20 and max(sizes) < 1.2 * bound


def test_the_clip_bound_does_not_depend_on_the_batch():
    """It goes by the largest prior there can be, whatever that of the rows in a batch is."""
    model = make(BOX, DISCRETE, penalty_coef=0.5, gamma=0.9).learn(12)
    bound = (1 + 1 / 0.5) / (1 - 0.9)
    assert model.objective.value_bound == pytest.approx(bound)
    with th.no_grad():
        model.q_net_target.q_net[-1].bias.fill_(1e6)  # every V(s') is clipped
        for n, prior in ((4, -1.0), (8, -0.5), (8, 0.0)):
            batch = sample_batch(model, n)._replace(reward_prior=th.full((2 * n,), prior))
            batch = batch._replace(terminated=th.zeros(2 * n))
            _, info = updates.critic_loss(model.policy, batch, model.policy.ent_coef, model.objective, 0.0)
            assert info["clip_fraction"] == 1
            q_values = model.policy.q_values(batch.obs, batch.actions)[0, :n]
            assert info["expert_reward"].item() == pytest.approx((q_values.mean() - 0.9 * bound).item(), abs=1e-3)
