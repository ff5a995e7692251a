"""Combinations of settings: refused with a reason, or finite."""

import random
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from sb3_iq import IQLearn
from sb3_iq.iq_learn.objective import Objective
from sb3_iq.iq_learn.settings import OBJECTIVE_KWARGS
from tests.utils import BOX, DISCRETE, WIDE_BOX, assert_finite, make_model


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    return make_model(policy, observation_space, action_space, **{"policy_kwargs": dict(net_arch=[16]), **kwargs})


def literals(hints, none):
    """:return: for each argument that is one of several names, these names, and None where that is allowed"""
    found = {}
    for name, hint in hints.items():
        options = [hint, *get_args(hint)]
        values = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
        if values:
            found[name] = values + ([None] if none or type(None) in get_args(hint) else [])
    return found


ARGUMENTS = literals(IQLearn.__init__.__annotations__, none=False)
# What isn't in objective_kwargs is set by the preset
FORMS = literals(get_type_hints(Objective), none=True)


def test_the_literals_are_found():
    assert set(ARGUMENTS) == {"preset", "expert_actions"}
    assert set(FORMS) == {
        *("divergence", "occupancy_term", "penalty"),
        *("terminal_value", "critic_bound", "expert_target"),
    }
    assert {*FORMS, "mixture_weight", "use_target", "gradient_penalty"} == set(OBJECTIVE_KWARGS)
    assert set(OBJECTIVE_KWARGS) < {field.name for field in fields(Objective)}


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_random_settings(seed):
    """Refused with the name and the value of a setting and what to do, or learned with finite parameters."""
    rng = random.Random(seed)
    form = {name: rng.choice([*values, None, None]) for name, values in FORMS.items()}
    form |= {"gradient_penalty": rng.choice([None, None, 10.0]), "use_target": rng.choice([None, True, False])}
    form |= {"mixture_weight": rng.choice([None, 0.0, 0.1, 3.0])}
    form = {name: value for name, value in form.items() if value is not None}
    settings = {name: rng.choice(values) for name, values in ARGUMENTS.items()}
    settings |= {"offline": rng.random() < 0.4, "ent_coef": rng.choice([None, 0.01, 1.0, "auto_0.1"])}
    settings |= {"reward_prior": rng.choice([None, 0.0, 1.0]), "bc_coef": rng.choice([None, 0.0, 1.0])}
    action_space = rng.choice([DISCRETE, WIDE_BOX])
    try:
        model = make(BOX, action_space, objective_kwargs=form or None, **settings).learn(120)
    except ValueError as error:
        named = str(error).split("`")[1]
        given = {name: value for name, value in {**settings, **form}.items() if value is not None}
        if named in given:
            assert f"`{named}` is {given[named]!r}" in str(error)
        else:  # a preset's, which what was given does not go with
            assert "preset" in given and any(name in str(error) for name in given)
        assert any(word in str(error) for word in ("Use", "use", "which only"))
        return
    assert_finite(model)


@pytest.mark.parametrize(
    "form, message",
    [
        (dict(divergence="total_variation"), "`divergence` is 'total_variation': .* Use critic_bound='tanh'"),
        (dict(divergence="wasserstein"), "`divergence` is 'wasserstein': .* Use gradient_penalty=10"),
        (dict(expert_target="fixed", penalty="expert"), "`expert_target` is 'fixed': .*least squares"),
        (dict(expert_target="fixed", divergence="reverse_kl"), "`expert_target` is 'fixed': .*least squares"),
        (dict(gradient_penalty=-1.0), "`gradient_penalty` is -1.0: it must be finite and not negative"),
        (dict(mixture_weight=-1.0), "`mixture_weight` is -1.0: it must be finite and not negative"),
        (dict(mixture_weight=True), "`mixture_weight` is True: it must be finite"),
        (dict(divergence="kl"), "`divergence` is 'kl': choose one of chi2"),
        (dict(occupancy_term="v0"), "`occupancy_term` is 'v0': choose one of policy_mix"),
        (dict(penalty="both"), "`penalty` is 'both'"),
        (dict(terminal_value="none"), "`terminal_value` is 'none': choose one of zero, absorbing"),
        (dict(critic_bound="relu"), "`critic_bound` is 'relu': choose one of none, clip, tanh"),
        (dict(expert_target="mine"), "`expert_target` is 'mine': choose one of bootstrap, fixed"),
    ],
)
def test_refused_objectives(form, message):
    with pytest.raises(ValueError, match=message):
        make(objective_kwargs=form)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(penalty_coef=0.0), "`penalty_coef` is 0.0"),
        (dict(gamma=1.0), "`gamma` is 1.0"),
        (dict(ent_coef=0.0), "`ent_coef` is '0.0'"),
        (dict(batch_size=0), "batch_size=0: expected an integer at least 1"),
        (dict(ent_coef="auto_x"), "`ent_coef` is 'auto_x'"),
        (dict(ent_coef=[0.1]), r"`ent_coef` is '\[0.1\]'"),
        (dict(reward_prior=-1.0), "`reward_prior` is -1.0: it must be finite and not negative"),
        (dict(bc_coef=-0.1), "`bc_coef` is -0.1: it must be finite and not negative"),
        (dict(offline=True, objective_kwargs=dict(occupancy_term="policy_mix")), "`occupancy_term` is 'policy_mix': offline"),
        (
            dict(offline=True, objective_kwargs=dict(occupancy_term="policy")),
            "`occupancy_term` is 'policy': offline there are no transitions",
        ),
        (dict(offline=True, objective_kwargs=dict(penalty="mixture")), "`penalty` is 'mixture': offline"),
        (dict(offline=True, expert_actions="inverse_dynamics"), "`expert_actions` is 'inverse_dynamics': offline"),
        (dict(expert_actions="policy", bc_coef=0.1), "`expert_actions` is 'policy': .* clones the expert's actions"),
        (dict(expert_actions="mine"), "`expert_actions` is 'mine': choose one of given, policy, inverse_dynamics"),
    ],
)
def test_refused_with_the_reason(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_unknown_key_of_objective_kwargs():
    with pytest.raises(
        ValueError, match="`objective_kwargs` has the key 'divergance': choose from divergence, occupancy_term"
    ):
        make(objective_kwargs=dict(divergance="chi2"))
    with pytest.raises(ValueError, match=r"`objective_kwargs` has the key 'penalty_coef': .* are arguments of IQLearn"):
        make(objective_kwargs=dict(penalty_coef=1.0))


def test_objective_kwargs_are_kept_as_given():
    given = dict(divergence="jensen_shannon", mixture_weight=0.5)
    model = make(objective_kwargs=given)
    assert model.objective_kwargs is given and given == dict(divergence="jensen_shannon", mixture_weight=0.5)
    assert (model.objective.divergence, model.objective.mixture_weight) == ("jensen_shannon", 0.5)
    assert make(objective_kwargs=None).objective == make(objective_kwargs={}).objective == make().objective


def test_settings_are_resolved_once_and_frozen():
    model = make(gamma=0.5)
    assert model.settings.gamma == model.objective.gamma == model.gamma == 0.5
    for value, name in ((model.settings, "gamma"), (model.objective, "divergence")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_offline_and_online_have_terms_of_their_own():
    """A model that changes from one to the other changes what a preset sets for it, and nothing that the user gave."""
    model = make(offline=True, objective_kwargs=dict(divergence="jensen_shannon"))
    assert (model.objective.occupancy_term, model.objective.penalty) == ("expert", "expert")
    model.offline = False
    model._resolve_settings()
    assert (model.objective.occupancy_term, model.objective.penalty) == ("policy_mix", "mixture")
    assert model.objective.divergence == "jensen_shannon"
