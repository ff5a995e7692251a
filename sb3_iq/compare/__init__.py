"""One command that compares imitation learning algorithms on your task: ``python -m sb3_iq.compare``."""

from sb3_iq.compare.algorithms import Algorithm
from sb3_iq.compare.driver import compare, report

__all__ = ["Algorithm", "compare", "report"]
