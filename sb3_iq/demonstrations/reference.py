"""A choice of episodes in the string that names the data, where there is no Python: ``demos:Hopper-v5?n_trajectories=1``."""

from pathlib import Path

from sb3_iq.demonstrations.errors import reading, shorten

CHOICES = ("n_trajectories", "subsample_freq", "seed", "max_episode_steps")


def split_reference(reference: str) -> tuple[str, dict[str, int]]:
    """
    :param reference: what names the data, with or without ``?NAME=NUMBER&NAME=NUMBER`` at its end
    :return: the reference without that, and the arguments of :func:`~sb3_iq.load_demonstrations` in it
    :raises ValueError: if it is malformed, with the names that there are
    """
    base, mark, query = reference.rpartition("?")
    if not mark:
        return reference, {}
    with reading(reference, "a path"):
        if Path(reference).exists():
            return reference, {}
    choice: dict[str, int] = {}
    for part in query.split("&"):
        name, _, number = part.partition("=")
        if name not in CHOICES or name in choice or not number.isdecimal():
            raise ValueError(
                f"expert_data {shorten(reference)}: there is no such path, and {shorten(part)} is not understood. After '?' "
                f"give each of {', '.join(CHOICES)} at most once, e.g. '?n_trajectories=10&seed=0'"
            )
        choice[name] = int(number)
    return base, choice
