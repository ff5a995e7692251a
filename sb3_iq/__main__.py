"""``python -m sb3_iq`` lists the commands of this package."""

import sys
from collections.abc import Sequence

COMMANDS = {
    "demonstrations": "a report on demonstrations: what is in them, and whether IQLearn takes them; split, save and plot them",
    "record": "demonstrations of a trained agent of Stable-Baselines3, sb3-contrib or RL Zoo",
    "play": "demonstrations of your own, by the keys",
    "zoo": "RL Zoo's commands (train, enjoy, ...) with the algorithm iq, where rl_zoo3 itself does not know it",
    "rewards": "a report on the reward that a model has recovered",
    "compare": "a comparison of IQ-Learn with GAIL, AIRL, SQIL and behavioural cloning",
}
"""A line for each; what they take is told by ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Print the commands.

    :param argv: the arguments, None for those of the command line: there are none
    :return: the exit status: 0, or 2 if there are arguments
    """
    given = sys.argv[1:] if argv is None else argv
    print("The commands of sb3-iq; each explains itself with --help:\n")
    for name, line in COMMANDS.items():
        print(f"  python -m sb3_iq.{name:14}  {line}")
    unknown = [word for word in given if word not in ("-h", "--help")]
    if unknown:
        print(f"python -m sb3_iq takes no arguments, and has been given {' '.join(unknown)[:80]}", file=sys.stderr)
    return 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
