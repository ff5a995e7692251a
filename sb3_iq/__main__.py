"""``python -m sb3_iq`` lists the commands of this package."""

COMMANDS = {
    "demonstrations": "a report on demonstrations: what is in them, and whether IQLearn takes them; split, save and plot them",
    "record": "demonstrations of a trained agent of Stable-Baselines3, sb3-contrib or RL Zoo",
    "play": "demonstrations of your own, by the keys",
    "zoo": "RL Zoo's commands (train, enjoy, ...) with the algorithm iq, where rl_zoo3 itself does not know it",
    "rewards": "a report on the reward that a model has recovered",
    "compare": "a comparison of IQ-Learn with GAIL, AIRL, SQIL and behavioural cloning",
}
"""A line for each; what they take is told by ``--help``."""


def main() -> None:
    """Print the commands."""
    print("The commands of sb3-iq; each explains itself with --help:\n")
    for name, line in COMMANDS.items():
        print(f"  python -m sb3_iq.{name:14}  {line}")


if __name__ == "__main__":
    main()
