"""
The first episodes of the reference policy of online training, beside the demonstration that it was cloned from.

    SB3_IQ_DEMOS=... python benchmarks/reference_policy.py Ant-v5:3 Hopper-v5:4   # environments and seeds

For each (none: those of the documentation), with one demonstration: the lengths and true returns of five episodes, the return
of the demonstration, and the share of the demonstration's prior reward that the first 1,000 steps earn. No policy is trained.
"""

import sys
from typing import Any

import numpy as np
import torch as th

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.comparison import expert_return_of
from sb3_iq.iq_learn.reference_policy import EPISODES, share_of_demonstrations
from sb3_iq.iq_learn.replay import newest_rows

DOCUMENTED = (
    *("Ant-v5:3", "Ant-v5:4", "Ant-v5:5", "Hopper-v5:3", "Hopper-v5:4", "Hopper-v5:1"),
    *("Walker2d-v5:3", "Walker2d-v5:5", "HalfCheetah-v5:3"),
)
HEADER = "| environment | seed | lengths | returns | demonstration | share at 1,000 steps |\n|---|---|---|---|---|---|"
AT_A_TIME = 500
JUDGED_AT = 1_000


def first_episodes(env_id: str, seed: int) -> dict[str, Any]:
    """:return: the cells of a row of the table, by its header"""
    demonstrations = load_demonstrations(f"demos:{env_id}", 1, seed=seed)
    # The reference plays for as long as training has not started
    model = IQLearn("MlpPolicy", env_id, demonstrations, seed=seed, learning_starts=1_000_000, buffer_size=100_000)
    buffer, ends = model.replay_buffer, np.array([], dtype=int)
    assert buffer is not None
    while len(ends) < EPISODES or buffer.size() <= JUDGED_AT:
        model.learn(AT_A_TIME, reset_num_timesteps=False)
        ends = np.flatnonzero(buffer.dones[: buffer.size()].ravel())[:EPISODES]
    assert model.sampler is not None
    starts = [0, *(ends[:-1] + 1)]
    rows = newest_rows(buffer, buffer.size())[: JUDGED_AT + 1]
    return {
        "lengths": [int(end + 1 - start) for start, end in zip(starts, ends, strict=True)],
        "returns": [round(float(buffer.rewards[start : end + 1].sum())) for start, end in zip(starts, ends, strict=True)],
        "demonstration": round(expert_return_of(demonstrations, None)),
        "share": round(share_of_demonstrations(buffer, rows, model.sampler)[0], 2),
    }


def main() -> None:
    th.set_num_threads(1)
    print(HEADER)
    for job in sys.argv[1:] or DOCUMENTED:
        env_id, seed = job.rsplit(":", 1)
        cells = first_episodes(env_id, int(seed))
        lengths, returns = (", ".join(map(str, cells[name])) for name in ("lengths", "returns"))
        row = env_id, seed, lengths, returns, str(cells["demonstration"]), str(cells["share"])
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
