"""A penalty of a Q that is steeper than its bound allows between transitions of the expert and of the policy."""

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.policies import SoftPolicy

# The gradient of a gradient is dear, and some of the rows show it as well as all do
PENALIZE_EVERY = 4


def distance_to_nearest(points: th.Tensor, rows: th.Tensor) -> th.Tensor:
    """
    :param points: shape (n, d)
    :param rows: which of them are asked for, shape (m,)
    :return: the distance of these to the nearest other point, at most sqrt(d), shape (m,). What was drawn twice is one point
    """
    distances = th.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")  # else 0 is not 0
    farthest = points.shape[1] ** 0.5
    return distances.masked_fill(distances < 1e-3 * farthest, farthest).amin(dim=1).clamp(max=farthest)


def sample_weights(n_rows: int, device: th.device) -> th.Tensor:
    """
    :param n_rows: the number of transitions in a batch
    :param device: where it is
    :return: how far along the way from each penalised row to its partner Q's gradient is looked at, in [0, 1]
    """
    return th.rand(len(range(0, n_rows, PENALIZE_EVERY)), device=device)


def gradient_penalty(
    policy: SoftPolicy, obs: PyTorchObs, actions: th.Tensor, n_expert: int, weights: th.Tensor, value_bound: float
) -> th.Tensor:
    """
    How much steeper Q is than K, ``E[max(0, |grad Q| / K - 1)^2]``, between the expert's and the policy's transitions
    (offline: between the expert's). The gradient is that with respect to observations and continuous actions; each critic
    counts.

    Observations count in standard deviations of the demonstrations, images in units of their range. K is such that Q changes
    by no more than its bound on the way from one transition of the expert to the next one in the batch, or over a distance of
    sqrt(d), one unit for each of the d numbers, where that is less: what lies between its own samples is not told from them.

    :param policy: the policy
    :param obs: observations of a batch of the expert and the policy
    :param actions: actions, shape (batch, action_dim)
    :param n_expert: how many of the first rows are the expert's
    :param weights: what :func:`sample_weights` returned
    :param value_bound: the bound of values
    :return: the penalty, a scalar
    """
    n_rows = len(actions)
    n_policy = n_rows - n_expert
    rows = th.arange(0, n_rows, PENALIZE_EVERY, device=actions.device)
    # The partner of each row: one of the other side, offline another of the expert's
    if n_policy > 0:
        partners = th.where(rows < n_expert, n_expert + rows % n_policy, (rows - n_expert) % n_expert)
    else:
        partners = (rows + n_rows // 2) % n_rows

    def between(values: th.Tensor) -> th.Tensor:
        w = weights.view(-1, *[1] * (values.dim() - 1))
        return (w * values[rows].float() + (1 - w) * values[partners].float()).requires_grad_()

    named_obs = obs if isinstance(obs, dict) else {"obs": obs}
    units = policy.normalizer.units()
    mixed = {key: between(values) if key in units else values[rows] for key, values in named_obs.items()}
    inputs, scales, moved = [mixed[key] for key in units], list(units.values()), actions[rows]
    measured = [named_obs[key] for key in units]
    if policy.continuous:
        moved = between(actions)
        inputs.append(moved)
        scales.append(1.0)
        measured.append(actions)
    scaled_rows = [(values[:n_expert] / scale).flatten(1) for values, scale in zip(measured, scales, strict=True)]
    steepest = value_bound / distance_to_nearest(th.cat(scaled_rows, dim=1), rows % n_expert)
    penalties = []
    for q_values in policy.q_values(mixed if isinstance(obs, dict) else mixed["obs"], moved):
        # A features extractor shared with the actor is trained by the actor: there Q has no gradient in observations
        gradients = th.autograd.grad(q_values.sum(), inputs, create_graph=True, allow_unused=True)
        scaled = [g * scale for g, scale in zip(gradients, scales, strict=True) if g is not None]
        squares = [gradient.flatten(1).square().sum(dim=1) for gradient in scaled]
        # The root has no gradient at 0
        norms = (th.stack(squares).sum(dim=0) + 1e-12).sqrt()
        penalties.append((norms / steepest - 1).clamp(min=0).square().mean())
    return th.stack(penalties).mean()
