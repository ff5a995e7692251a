"""On a GPU; skipped where there is none."""

import numpy as np
import pytest
import torch as th

from sb3_iq import IQLearn
from sb3_iq.iq_learn import NonFiniteLossError
from tests.utils import (
    BOX,
    COMBINATIONS,
    DISCRETE,
    WIDE_BOX,
    RandomEnv,
    assert_finite,
    make_model,
    parameters,
    random_trajectories,
)

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
@pytest.mark.parametrize("offline", [False, True])
def test_learning(policy, observation_space, action_space, offline, tmp_path):
    model = make_model(policy, observation_space, action_space, offline=offline, device="cuda").learn(20)
    assert {parameter.device.type for parameter in model.policy.parameters()} == {"cuda"}
    assert_finite(model)
    model.save(tmp_path / "model")
    on_cpu = IQLearn.load(tmp_path / "model", device="cpu")
    assert th.equal(parameters(model).cpu(), parameters(on_cpu))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_rewards_are_those_of_the_cpu(action_space, tmp_path):
    model = make_model("MlpPolicy", BOX, action_space, device="cuda").learn(20)
    model.save(tmp_path / "model")
    trajectory = random_trajectories(RandomEnv(BOX, action_space))[0]
    batch = trajectory.obs[:-1], trajectory.acts, trajectory.obs[1:], np.arange(10) == 9
    loaded = [IQLearn.load(tmp_path / "model", device=device) for device in ("cpu", "cuda")]
    rewards = [each.predict_reward(*batch) for each in loaded]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-4)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("fused", [True, False])
def test_no_optimiser_steps_on_what_is_not_finite(action_space, fused):
    kwargs = dict(net_arch=[8]) if fused else dict(net_arch=[8], optimizer_kwargs={})
    model = make_model("MlpPolicy", BOX, action_space, offline=True, device="cuda", policy_kwargs=kwargs).learn(2)
    critic, _, optimizer = model.policy.critic_networks()
    assert bool(optimizer.param_groups[0].get("fused")) == fused
    with th.no_grad():
        list(critic.parameters())[-1].fill_(1e30)
    before = [parameter.clone() for parameter in critic.parameters()]
    with pytest.raises(NonFiniteLossError, match="diverged at gradient step 2"):
        model.learn(300, reset_num_timesteps=False)
    assert model._n_updates <= 102
    assert all(th.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))
    assert_finite(model)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_resume_is_exact(action_space, tmp_path):
    trajectories = random_trajectories(RandomEnv(BOX, action_space))
    whole = make_model("MlpPolicy", BOX, action_space, offline=True, device="cuda").learn(40)
    make_model("MlpPolicy", BOX, action_space, offline=True, device="cuda").learn(20).save(tmp_path / "half")
    resumed = IQLearn.load(tmp_path / "half", device="cuda", expert_data=trajectories)
    resumed.learn(20, reset_num_timesteps=False)
    assert th.allclose(parameters(whole), parameters(resumed), atol=1e-6)


def test_prior_rewards_are_on_the_device():
    model = make_model("MlpPolicy", BOX, WIDE_BOX, device="cuda").learn(30)
    samples, stored = model.sampler.stored_prior.sample(50)
    assert stored.device.type == samples.dones.device.type == "cuda"
    assert th.allclose(stored, model.prior(samples), atol=1e-4)
