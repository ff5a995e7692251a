"""What a reward is made of."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from stable_baselines3.common.policies import BasePolicy

from sb3_iq.iq_learn.obs_statistics import Obs, ObsStatistics
from sb3_iq.rewards.ends import ExpertEnds, are_vectors
from sb3_iq.rewards.occupancy import StateOccupancy

__all__ = ["ExpertEnds", "Form", "Obs", "ObsStatistics", "RewardParts", "StateOccupancy", "Typical"]

Form = Literal["bellman", "advantage", "bounded", "occupancy"]


class Typical(NamedTuple):
    """
    What is typical of the demonstrations' states, or of states like these.

    :param value: the mean of V
    :param regret: the mean of V - Q for random actions: how much one of them costs
    """

    value: float
    regret: float


@dataclass(frozen=True)
class RewardParts:
    """
    Everything a reward is computed from.

    :param policy: the networks, of which no parameter changes any more
    :param gamma: the discount factor of the model
    :param ent_coef: the temperature alpha
    :param terminal_v: V of terminal states; None: an absorbing state in which the last transition repeats, V = Q(s, a)
    :param form: ``"bellman"``, ``"advantage"``, ``"bounded"`` or ``"occupancy"``
    :param statistics: what observations are normalised by before the networks, if by anything
    :param typical: what is typical of the demonstrations' states; None where these are not known any more
    :param ends: how the demonstrations end; None where these are not known any more, or no vectors of numbers
    :param occupancy: how the demonstrations' states are spread; None unless the reward was made for the form ``"occupancy"``
    """

    policy: BasePolicy
    gamma: float
    ent_coef: float
    terminal_v: float | None
    form: Form = "bellman"
    statistics: ObsStatistics | None = None
    typical: Typical | None = None
    ends: ExpertEnds | None = None
    occupancy: StateOccupancy | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"`form` is {str(self.form)[:80]!r}: choose one of {', '.join(get_args(Form))}.")
        if self.form == "occupancy" and not are_vectors(space := self.policy.observation_space):
            raise ValueError(
                f"`form` is 'occupancy', and observations of {str(space)[:80]} are no vectors of numbers, so that no distance "
                "says what is near: use 'bounded'."
            )
        if self.form == "occupancy" and self.occupancy is None:
            raise ValueError(
                "`form` is 'occupancy', and this reward does not hold the demonstrations' states: make it by "
                "LearnedReward(model, form='occupancy') of a model with demonstrations, IQLearn.load(path, expert_data=...)."
            )
