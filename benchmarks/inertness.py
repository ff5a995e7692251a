"""
How much of a trained model is IQ-Learn, and how much its prior of rewards.

    SB3_IQ_DEMOS=... python benchmarks/inertness.py model.zip Walker2d-v5 "demos:Walker2d-v5?n_trajectories=1&seed=10"

On transitions of the policy itself (with its exploration): the variance of r - r_0 as a share of that of r_0, with the learned
reward r = Q - gamma V' and the prior r_0; the R^2 of r on r_0; and the norm of the gradient of the objective's terms of the
expert's rewards and of the occupancy as a share of the sum of this and that of the penalty, which is least squares on r_0.
A model that has learned nothing beyond its prior has shares near 0; noise of the Bellman error counts as learned.
"""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from episodes import model_parser

from sb3_iq import IQLearn
from sb3_iq.iq_learn.objective import expert_loss, occupancy_loss, penalty_loss, split_rewards
from sb3_iq.iq_learn.optimization import parameters_of

SEED = 30_000
N_BATCHES = 20


def policy_rows(model: IQLearn, n: int) -> tuple[Any, np.ndarray]:
    """:return: transitions of the replay buffer and their prior rewards (package internals)"""
    buffer: Any = model.replay_buffer
    samples = buffer._get_samples(np.arange(n), env=model.get_vec_normalize_env())
    with th.no_grad():
        return samples, model.prior(samples).cpu().numpy()  # type: ignore[misc]


def gradients(model: IQLearn) -> tuple[float, float]:
    """
    :return: the norms of the critic's gradient: of the terms of the expert's rewards and the occupancy, and of the penalty
        (package internals; chi-squared to the mixture)
    """
    assert model.sampler is not None
    batch = model.sampler.sample(model.batch_size, model.num_timesteps // model.n_envs, model._actions_of_expert)
    parameters = parameters_of(model.policy.critic_networks()[2])
    values = model.policy.soft_values(batch, model.policy.ent_coef, model.objective.use_target)
    rewards = split_rewards(values, batch, model.objective)
    penalty = penalty_loss(rewards, model.objective)
    others = expert_loss(values, rewards, model.objective) + occupancy_loss(values, rewards, batch, model.objective)
    norms = []
    for loss in (others, penalty):
        found = th.autograd.grad(loss, parameters, retain_graph=True)
        norms.append(float(th.cat([gradient.flatten() for gradient in found]).norm()))
    return norms[0], norms[1]


def report(model: IQLearn, env_id: str, n_steps: int) -> dict[str, Any]:
    """:return: what the script prints"""
    model.learn(n_steps)  # no gradient steps: it plays, which fills the replay buffer
    samples, r0 = policy_rows(model, n_steps)
    actions = samples.actions.cpu().numpy()
    rewards = model.predict_reward(
        samples.observations.cpu().numpy(),
        model.policy.unscale_action(actions) if model.policy.squash_output else actions.flatten(),
        samples.next_observations.cpu().numpy(),
        samples.dones.cpu().numpy().flatten() > 0,
    )
    norms = np.array([gradients(model) for _ in range(N_BATCHES)]).mean(axis=0)
    return {
        "env": env_id,
        "steps": n_steps,
        "mean_r": round(float(rewards.mean()), 3),
        "mean_r0": round(float(r0.mean()), 3),
        "var_ratio": round(float((rewards - r0).var() / r0.var()), 4),
        "r2": round(float(np.corrcoef(rewards, r0)[0, 1] ** 2), 4),
        "gradient_norm_iq": round(float(norms[0]), 4),
        "gradient_norm_penalty": round(float(norms[1]), 4),
        "gradient_share_iq": round(float(norms[0] / norms.sum()), 4),
    }


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    without_training = {
        "gradient_steps": 0,
        "learning_starts": 0,
        "buffer_size": arguments.steps,
        "seed": SEED,
    }
    model = IQLearn.load(arguments.model, env=gym.make(arguments.env), expert_data=arguments.demos, **without_training)
    print(json.dumps(report(model, arguments.env, arguments.steps)))


if __name__ == "__main__":
    main()
