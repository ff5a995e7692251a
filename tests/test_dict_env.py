"""Dict observations."""

import pytest

from tests.utils import COMBINATIONS, check_learning


@pytest.mark.parametrize(
    "policy, observation_space, action_space", [row for row in COMBINATIONS if row[0] == "MultiInputPolicy"]
)
@pytest.mark.parametrize("offline", [False, True])
def test_learning(policy, observation_space, action_space, offline):
    check_learning(policy, observation_space, action_space, offline)
