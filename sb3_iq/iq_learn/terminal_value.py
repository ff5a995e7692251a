"""What a terminal state is worth: the value of an absorbing state, by the objective itself."""

import torch as th

from sb3_iq.iq_learn.objective import Objective


def terminal_value(objective: Objective, offline: bool, expert_terminates: bool) -> float | None:
    """
    :param objective: the objective
    :param offline: whether there are no transitions of the policy
    :param expert_terminates: whether any demonstration ends in a terminal state
    :return: V of terminal states; None where both the expert and the policy may end, alike or not
    """
    if objective.terminal_value == "zero":
        return 0.0
    if not offline and expert_terminates:
        return None
    shares = (1.0, 0.0) if offline else (0.0, 1.0)
    return absorbing_reward(objective, *shares) / (1 - objective.gamma)


def absorbing_reward(objective: Objective, expert_share: float, policy_share: float) -> float:
    """
    The reward of a terminal state, as IQ-Learn would learn it if an episode went on for ever there, in an absorbing state.

    There nothing is left to choose, V = Q, and the objective is a function of one reward r that is paid for ever: with the
    shares e and p of terminations in this state among the expert's and the policy's transitions (the occupancies of entering
    it, both times 1 / (1 - gamma) for being in it), its derivative is

        e phi'(r) - w - [c (e + m p) r],    w = 0, e, (e + p) / 2, p

    for initial states (and those of the expert that stand for them), ``"expert"``, ``"policy_mix"`` and ``"policy"``; the
    bracket is the penalty of the mixture by 1 : m. As the derivative falls with r, its zero is found by bisection, in
    [-1/c, 1/c], the bounds of a reward (https://arxiv.org/abs/2303.00599).

    :param objective: the objective
    :param expert_share: terminations among the expert's transitions, in [0, 1]
    :param policy_share: terminations among the policy's transitions, in [0, 1]
    :return: the reward r, and thus V = r / (1 - gamma)
    """
    expert, policy, coef = expert_share, policy_share, objective.penalty_coef
    phi_prime = objective.row.absorbing_phi_prime or objective.row.phi_prime
    weights = {"expert": expert, "policy_mix": (expert + policy) / 2, "policy": policy}
    weight = weights.get(objective.occupancy_term, 0.0)

    def derivative(reward: float) -> float:
        slope = 1.0 if objective.least_squares else float(phi_prime(th.tensor(reward, dtype=th.float64), coef))
        pull = coef * (expert + objective.mixture_weight * policy) * reward if objective.penalty == "mixture" else 0.0
        return expert * slope - weight - pull

    low, high = -1 / coef, 1 / coef
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) > 0 else (low, middle)
    return (low + high) / 2
