"""Terminal states: two-state MDPs in which a value of zero favours the wrong end, and what the absorbing value is."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn import reward_priors
from sb3_iq.iq_learn.objective import Objective, SoftValues, iq_loss
from sb3_iq.iq_learn.terminal_value import absorbing_reward
from tests.utils import Rows

COEF = 0.5


class TwoStates(gym.Env):
    """
    :param table: for each state and action, the next state (2 is terminal) and the probability to move there rather than stay
    :param starts: the initial states, drawn from uniformly
    """

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def __init__(self, table, starts, length=20):
        self.table, self.starts, self.length = table, starts, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.n_steps = int(self.np_random.choice(self.starts)), 0
        return self.state, {}

    def step(self, action):
        target, probability = self.table[self.state][int(action)]
        if self.np_random.random() < probability:
            self.state = target
        self.n_steps += 1
        dead = self.state == 2
        return min(self.state, 1), 0.0, dead, self.n_steps >= self.length and not dead, {}


def q_of_state_1(env, demonstration, terminal_value, **kwargs):
    """:return: Q(1, .) after learning"""
    return learned_q_values(env, demonstration, terminal_value, **kwargs)[1]


def learned_q_values(env, demonstration, terminal_value, occupancy_term="policy_mix", n_steps=1_000, **kwargs):
    """:return: Q(0, .) and Q(1, .)"""
    model = IQLearn(
        "MlpPolicy",
        env,
        [demonstration] * 2,
        objective_kwargs=dict(terminal_value=terminal_value, occupancy_term=occupancy_term),
        seed=0,
        device="cpu",
        gamma=0.9,
        learning_starts=200,
        batch_size=64,
        tau=0.05,
        policy_kwargs=dict(net_arch=[32]),
        learning_rate=5e-4,
        **{"bc_coef": 0.0, "reward_prior": 0.0, "penalty_coef": 0.5, **kwargs},  # the objective alone
    ).learn(n_steps)
    with th.no_grad():
        return model.q_net(th.arange(2)).tolist()


@pytest.fixture
def prior_by_distance(monkeypatch):
    """The prior of continuous actions, by states and next states."""

    class OfStates(reward_priors.DistancePrior):
        def __init__(self, inputs):
            super().__init__(replace(inputs, expert_actions_given=False))

    row = reward_priors.PriorRow(OfStates, lambda obs, actions, given: True)
    monkeypatch.setattr(reward_priors, "PRIORS", {"states": row})


@pytest.mark.slow
def test_a_negative_reward_does_not_make_death_attractive():
    """
    The expert stays in state 0 for ever. From state 1, where it never is, one can die or find back slowly. With ``"policy"``
    each step there costs 1/c: with V = 0 dying early is the better end, as an absorbing state it is the worse.
    """
    env = TwoStates([[(0, 1.0), (1, 1.0)], [(0, 0.05), (2, 1.0)]], starts=[0, 1])
    options = dict(occupancy_term="policy")
    demonstration = Trajectory(np.zeros(21, int), np.zeros(20, int), None, terminated=False, truncated=True)
    back, die = q_of_state_1(env, demonstration, "zero", **options)
    assert die > back + 1
    back, die = q_of_state_1(env, demonstration, "absorbing", **options)
    assert back > die + 1


@pytest.mark.slow
def test_a_positive_reward_does_not_make_the_goal_repulsive():
    """
    The expert goes from state 0 to state 1 and on to the goal, which ends the episode. With ``"start_states"`` rewards are
    positive: with V = 0 going round between the two states collects the first step's reward again and again.
    """
    env = TwoStates([[(1, 1.0), (1, 1.0)], [(2, 1.0), (0, 1.0)]], starts=[0])
    demonstration = Trajectory(np.array([0, 1, 1]), np.array([0, 0]), None, terminated=True, truncated=False)
    goal, round_again = q_of_state_1(env, demonstration, "zero", occupancy_term="start_states")
    assert round_again > goal
    goal, round_again = q_of_state_1(env, demonstration, "absorbing", occupancy_term="start_states")
    assert goal > round_again + 1


@pytest.mark.slow
def test_the_default_of_box_actions_likes_the_goal(prior_by_distance):
    """As above, for ``"policy"`` and a prior, which rewards are positive with too."""
    env = TwoStates([[(1, 1.0), (1, 1.0)], [(2, 1.0), (0, 1.0)]], starts=[0])
    demonstration = Trajectory(np.array([0, 1, 1]), np.array([0, 0]), None, terminated=True, truncated=False)
    options = dict(occupancy_term="policy", reward_prior=4.0)
    goal, round_again = q_of_state_1(env, demonstration, "absorbing", **options)
    assert goal > round_again + 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(occupancy_term="policy_mix"),
        dict(occupancy_term="start_states"),
        dict(occupancy_term="policy", reward_prior=4.0),
    ],
)
def test_a_crash_is_no_goal(options, prior_by_distance):
    """
    The expert goes from state 1 to the goal, which ends the episode. In state 0, where it never is, one can find back slowly,
    or end the episode at once: that end is not the expert's.
    """
    env = TwoStates([[(1, 0.2), (2, 1.0)], [(2, 1.0), (0, 1.0)]], starts=[0, 1])
    demonstration = Trajectory(np.array([1, 1]), np.array([0]), None, terminated=True, truncated=False)
    (back, crash), (goal, away) = learned_q_values(env, demonstration, "absorbing", **options)
    assert back > crash + 1
    assert goal > away + 0.5


@pytest.mark.parametrize("expert, policy", [(0.02, 0.05), (0.0, 0.1), (0.1, 0.0), (0.05, 0.05)])
def test_absorbing_reward_of_chi2(expert, policy):
    """With the penalty of the mixture it is the table's reward of least squares, at the ratio of the two shares."""

    def reward(term, penalty="mixture", mixture_weight=1.0):
        form = Objective(occupancy_term=term, penalty=penalty, penalty_coef=COEF, mixture_weight=mixture_weight)
        return absorbing_reward(form, expert, policy)

    total = expert + policy
    assert reward("policy_mix") == pytest.approx((expert - policy) / (2 * COEF * total), abs=1e-9)
    assert reward("policy") == pytest.approx((expert - policy) / (COEF * total), abs=1e-9)
    assert reward("start_states") == pytest.approx(expert / (COEF * total), abs=1e-9)
    assert reward("expert") == pytest.approx(0, abs=1e-9)
    weighted = reward("start_states", mixture_weight=0.1)
    assert weighted == pytest.approx(expert / (COEF * (expert + 0.1 * policy)), abs=1e-9)
    if expert > 0:
        ratio = policy / expert
        assert reward("policy", "expert") == pytest.approx(max(-1 / COEF, (1 - ratio) / (2 * COEF)), abs=1e-9)
        assert reward("start_states", "expert") == pytest.approx(1 / (2 * COEF), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("term", ["policy_mix", "policy", "start_states", "expert"])
@pytest.mark.parametrize("expert, policy", [(0.25, 0.5), (0.5, 0.5), (1.0, 0.25)])
def test_the_last_transition_repeats_for_ever(expert, policy, term):
    """Where both end in one state, Q of the last transition comes to the value of the absorbing reward for their shares."""
    gamma, n = 0.9, 4
    form = Objective(gamma=gamma, occupancy_term=term, penalty_coef=COEF, terminal_v=None)
    terminated = th.cat([th.arange(n) < expert * n, th.arange(n) < policy * n]).float()
    q_end, q_else = (th.zeros((), dtype=th.float64, requires_grad=True) for _ in range(2))
    optimizer = th.optim.SGD([q_end], lr=20)
    for _ in range(400):
        q = th.where(terminated > 0, q_end, q_else)[None]
        n_states = {"policy_mix": 2 * n, "expert": n, "policy": 0}.get(term, 1)
        values = SoftValues(q, q_else.expand(2 * n), q_else.expand(n_states))
        loss, _ = iq_loss(values, Rows(terminated, n), form)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reward = absorbing_reward(form, expert, policy)
    assert q_end.item() == pytest.approx(reward / (1 - gamma), abs=1e-6)


def test_what_is_known_of_ends():
    """Nothing if the expert may end too; if the policy alone does, its end is as bad as what it does alone."""
    ends = Trajectory(np.array([0, 1, 1]), np.array([0, 0]), None, terminated=True, truncated=False)
    goes_on = Trajectory(np.zeros(21, int), np.zeros(20, int), None, terminated=False, truncated=True)
    env = TwoStates([[(0, 1.0), (2, 1.0)], [(0, 1.0), (2, 1.0)]], starts=[0])

    def terminal_v(demonstration, **kwargs):
        options = dict(gamma=0.9, penalty_coef=0.5, learning_starts=5, buffer_size=100, device="cpu")
        return IQLearn("MlpPolicy", env, [demonstration], **{**options, **kwargs}).learn(10).terminal_v

    assert terminal_v(ends) is None
    assert terminal_v(goes_on) == pytest.approx(-10, abs=1e-6)
    assert terminal_v(ends, offline=True) == pytest.approx(0, abs=1e-6)
    assert terminal_v(ends, objective_kwargs=dict(terminal_value="zero")) == 0


@pytest.mark.slow
def test_truncation_bootstraps():
    """Where every end is a time limit, the value of terminal states has no effect."""
    env = TwoStates([[(0, 1.0), (1, 1.0)], [(0, 1.0), (1, 1.0)]], starts=[0])
    demonstration = Trajectory(np.zeros(21, int), np.zeros(20, int), None, terminated=False, truncated=True)
    zero, absorbing = (q_of_state_1(env, demonstration, value, n_steps=300) for value in ("zero", "absorbing"))
    assert zero == absorbing
