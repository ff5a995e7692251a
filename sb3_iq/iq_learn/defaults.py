"""The constructor's defaults, as data: one setting for all tasks with discrete actions, one for all with continuous ones."""

from dataclasses import dataclass

from gymnasium import spaces

from sb3_iq.iq_learn.objective import OccupancyTerm, Penalty


@dataclass(frozen=True)
class Defaults:
    """What an argument left at ``None`` stands for; the names are those of :class:`~sb3_iq.IQLearn`'s arguments."""

    learning_rate: float
    batch_size: int
    gamma: float
    ent_coef: float
    use_target: bool
    penalty_coef: float
    occupancy_term: OccupancyTerm
    penalty: Penalty
    # Offline there are no policy transitions, so that terms under the policy's occupancy do not exist
    offline_occupancy_term: OccupancyTerm = "expert"
    offline_penalty: Penalty = "expert"


DISCRETE = Defaults(
    learning_rate=5e-4,
    batch_size=256,
    gamma=0.99,
    ent_coef=0.01,
    use_target=True,
    penalty_coef=0.5,
    occupancy_term="policy_mix",
    penalty="mixture",
)

CONTINUOUS = Defaults(
    learning_rate=3e-4,
    batch_size=256,
    gamma=0.97,
    ent_coef=0.01,
    use_target=True,
    penalty_coef=0.5,
    occupancy_term="start_states",
    penalty="mixture",
)


def defaults_for(action_space: spaces.Space | None) -> Defaults:
    """
    :param action_space: the environment's action space; None while a saved model is loaded, which brings its own settings
    :return: the defaults of its kind
    """
    return CONTINUOUS if isinstance(action_space, spaces.Box) else DISCRETE
