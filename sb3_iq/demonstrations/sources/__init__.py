"""
The kinds of expert data. Each module offers a function that takes the source, ``select`` (from the number of episodes
to the indices of those wanted, so that no other episode is decoded) and the time limit, and returns trajectories.
"""

from collections.abc import Callable, Sequence

Select = Callable[[int], Sequence[int]]
