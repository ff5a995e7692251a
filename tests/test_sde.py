"""Generalised state-dependent exploration."""

import pytest

from tests.utils import BOX, WIDE_BOX, assert_finite, make_model


@pytest.mark.parametrize("kwargs", [dict(use_sde=True), dict(use_sde=True, use_sde_at_warmup=True, sde_sample_freq=2)])
def test_sde(kwargs):
    assert_finite(make_model("MlpPolicy", BOX, WIDE_BOX, **kwargs).learn(16))
