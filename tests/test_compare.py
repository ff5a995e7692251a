"""Comparisons without training: arguments, statistics, table, plot and page."""

import csv
import json
import re
import sys
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch as th

from sb3_iq.compare import statistics, tables
from sb3_iq.compare.algorithms import NAMES, WORDS, Algorithm, parse, without_imitation
from sb3_iq.compare.comparison import Protocol
from sb3_iq.compare.driver import make_runs
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.execution import failed
from sb3_iq.compare.report import write_curves, write_report
from sb3_iq.compare.results import Results
from sb3_iq.compare.settings import BASELINES, read
from sb3_iq.plots import Curve, Panel, draw, figure, on_common_steps
from tests.compare_utils import DOWN, PROTOCOL, UP, make_row, make_run


def test_words_and_settings():
    assert [algorithm.name for algorithm in parse(list(WORDS))] == list(NAMES[:-1])
    assert parse(["iq/bc"]) == (Algorithm(NAMES[-1]),)  # by its name alone
    (algorithm,) = parse(["iq:preset=ls-iq,gamma=0.98,objective_kwargs={'divergence': 'kl'},offline=True"])
    assert algorithm.settings == dict(preset="ls-iq", gamma=0.98, objective_kwargs=dict(divergence="kl"), offline=True)
    assert parse([algorithm.label]) == (algorithm,)
    assert Algorithm("iq").label == "iq"
    assert len(parse(["iq", "iq", "iq:gamma=0.9"])) == 2


@pytest.mark.parametrize(
    ("algos", "message"),
    [
        (["iqq"], "'iqq' is not known. Choose among iq, bc, sqil, gail, airl, sb3/bc"),
        (["iq:"], None),
        (["iq,bc"], "'iq,bc' is not known.* Separate them by spaces"),
        (["iq:preset"], "expected NAME:KEY=VALUE"),
        (["iq:gamma=0.9,gamma=0.8"], "expected NAME:KEY=VALUE"),
        (["iq:gamma={[1]: 2}"], "gamma cannot be read"),
        (["gail:gamma=0.9"], "stands for sb3/gail and imitation/gail, name the one"),
        (["sb3/bc:timesteps=0"], "timesteps=0: expected an integer at least 1"),
        (["sb3/gail:budget=2"], "budget=2, which only imitation's algorithms have. Give timesteps="),
        (["imitation/gail:budget=2,timesteps=9"], "budget=2, beside timesteps. Give timesteps="),
        (["iq:seed=3"], "seed=3: a run has the seed of its demonstrations. Give --seeds and --first-seed"),
        (["imitation/gail:budget=0"], "budget=0: expected a number above 0"),
        ([], "expected a list"),
        ("iq", "expected a list"),
    ],
)
def test_wrong_algorithms(algos, message):
    if message is None:
        assert parse(algos) == (Algorithm("iq"),)
        return
    with pytest.raises(ValueError, match=message):
        parse(algos)


def test_budget_of_an_algorithm_of_imitation():
    algorithms = parse(["imitation/gail", "imitation/gail:budget=2,n_envs=2", "imitation/airl:budget=0.0001", "iq"])
    runs = make_runs(PROTOCOL, algorithms, [1], [0], read())
    assert [run.timesteps for run in runs] == [10_000, 2_000, 1, 1_000]
    settings = failed(runs[1], PROTOCOL, "")["settings"]
    assert (settings["budget"], settings["n_envs"], settings["running_norm"]) == (2, 2, True)


def test_labels_of_settings_are_the_same_in_each_process():
    """Of classes, functions and objects as well; and NumPy's numbers are Python's."""
    settings = dict(
        gamma=np.float64(0.5), policy_kwargs=dict(activation_fn=th.nn.ReLU, net_arch=np.array([4, 4])), tau=object()
    )
    (algorithm,) = parse([Algorithm("iq", settings)])
    relu = "torch.nn.modules.activation.ReLU"
    assert algorithm.label == (
        f"iq:gamma=0.5,policy_kwargs={{'activation_fn': '{relu}', 'net_arch': [4, 4]}},tau='builtins.object'"
    )
    assert parse([algorithm.label])[0].label == algorithm.label
    row = json.loads(json.dumps(failed(replace(make_run(), algorithm=algorithm), PROTOCOL, "")))
    assert row["settings"] == {
        "gamma": 0.5,
        "policy_kwargs": dict(activation_fn=relu, net_arch=[4, 4]),
        "tau": "builtins.object",
    }


def test_without_imitation(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    kept, note = without_imitation(parse(["iq", "gail", "airl"]))
    assert [algorithm.name for algorithm in kept] == ["iq", "sb3/gail"]
    assert "imitation/gail, imitation/airl: left out" in note and 'pip install ".[imitation,compare]"' in note
    assert without_imitation(parse(["iq"])) == (parse(["iq"]), "")


def test_baselines_file(tmp_path):
    settings = read()
    assert settings.of("imitation/gail", "CartPole-v1")["budget"] == 10
    assert settings.of("imitation/gail", "Hopper-v5")["ppo"]["gamma"] == 0.995
    path = tmp_path / "mine.yml"
    path.write_text("# a comment of mine\n" + BASELINES.read_text())
    assert read(path).digest == settings.digest
    path.write_text(BASELINES.read_text().replace("budget: 10", "budget: 3"))
    assert read(path).of("imitation/airl", "CartPole-v1")["budget"] == 3
    assert read(path).digest != settings.digest
    for text in ("gail: 3", "[", "gail: {default: {}}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="Start from a copy of"):
            read(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("budget", "error"), [("0", ValueError), ("-1", ValueError), (".inf", ValueError), ("10x", TypeError)]
)
def test_budget_in_the_file_of_baselines(tmp_path, budget, error):
    path = tmp_path / "mine.yml"
    path.write_text(BASELINES.read_text().replace("budget: 10", f"budget: {budget}", 1))
    with pytest.raises(error, match=r"gail: default: budget=.*expected a number"):
        read(path)


@pytest.mark.parametrize("expert_return", [20.0, float("nan"), float("inf")])
def test_nothing_to_normalise_by(expert_return):
    with pytest.raises(ValueError, match="there is nothing to normalise returns by"):
        replace(PROTOCOL, expert_return=expert_return)


def make_summary(algo, n_demos, timesteps=1_000):
    one, few = statistics.Estimate(1.0), statistics.Censored(9, False)
    return statistics.Summary(algo, n_demos, (0,), 0, timesteps, 500.0, one, one, few, 1, few, 1, few)


def test_who_is_first():
    """From one number of demonstrations no run of IQ-Learn may have ended well."""
    first, second = make_summary("iq", 1), replace(make_summary("sb3/bc", 1), improvement=statistics.Estimate(0.5))
    assert "a run of iq has a higher score" in " ".join(tables.notes([first, second, make_summary("iq", 3)], PROTOCOL))
    told = " ".join(tables.notes([second, make_summary("iq", 3)], PROTOCOL))
    assert "a run of the first algorithm from as many demonstrations has a higher score" in told


@pytest.mark.parametrize("timesteps", [10, 2_000])
def test_a_budget_of_its_own_is_told(timesteps):
    assert tables.cells(make_summary("iq", 1, timesteps), PROTOCOL)[5:7] == [f"{timesteps:,}", "1.00"]
    assert tables.cells(make_summary("iq", 1), PROTOCOL)[5:7] == ["", ""]
    told = " ".join(tables.notes([make_summary("imitation/gail", 1, timesteps)], PROTOCOL))
    assert ("they have a longer budget than the others" in told) is (timesteps > 1_000)


def test_steps_to_the_goal():
    """The goal is 0.9 of the way from 20 to 500, that is 452."""
    reached = statistics.to_goal(make_row("iq", 0, UP), PROTOCOL, "step")
    assert (reached, str(reached)) == (statistics.Censored(300, False), "300")
    assert not statistics.stayed(make_row("iq", 0, UP), PROTOCOL)
    assert statistics.stayed(make_row("iq", 0, [20.0, 452.0]), PROTOCOL)
    assert str(statistics.to_stay(make_row("iq", 0, UP), PROTOCOL)) == "500"
    assert str(statistics.to_stay(make_row("iq", 0, [*UP, 20.0]), PROTOCOL)) == "> 1,100"
    never = statistics.to_goal(make_row("iq", 0, DOWN), PROTOCOL, "step")
    assert (never, str(never)) == (statistics.Censored(1_000, True), "> 1,000")
    assert statistics.to_goal(make_row("sb3/bc", 0, [500.0]), PROTOCOL, "step") == statistics.Censored(0, False)
    assert statistics.median([never, reached, reached]) == reached
    assert statistics.median([never, reached]) == never
    assert statistics.median([never, never, reached]) == never


def test_return_at_the_common_budget():
    """A longer run counts by its first evaluation at or after the budget, a clone by its only one."""
    longer = make_row("imitation/gail", 0, [*DOWN[:-1], 111.0, 222.0], timesteps=10_000)
    assert statistics.at_budget(longer, 1_000) == 111.0
    assert statistics.at_budget(longer, 950) == 111.0
    assert statistics.at_budget(make_row("sb3/bc", 0, [333.0]), 1_000) == 333.0


def all_rows():
    rows = [make_row("sb3/gail", seed, DOWN if seed else UP) for seed in range(3)]
    rows += [make_row("iq", seed, UP) for seed in range(3)]
    rows += [make_row("sb3/bc", seed, [450.0 + seed]) for seed in range(3)]
    rows += [make_row("imitation/gail", seed, [*DOWN, *UP], timesteps=2_000) for seed in range(2)]
    rows.append(make_row("imitation/gail", 2, UP, error="RuntimeError: <lost>", return_mean=None, curve=[]))
    return rows


@pytest.mark.slow
def test_summaries(monkeypatch):
    pytest.importorskip("rliable")
    monkeypatch.setattr(statistics, "N_BOOTSTRAP", 400)
    np.random.seed(3)
    summaries = {summary.algo: summary for summary in statistics.summarize(all_rows(), PROTOCOL)}
    assert np.random.randint(1_000) == np.random.RandomState(3).randint(1_000)  # whose draws stay what they are
    assert list(summaries) == ["iq", "imitation/gail", "sb3/bc", "sb3/gail"]
    iq, gail, longer = summaries["iq"], summaries["sb3/gail"], summaries["imitation/gail"]
    assert str(iq.score_at_budget) == "1.00 [1.00, 1.00]" and iq.improvement is None
    # Three runs, of which rliable's interquartile mean leaves none out
    assert gail.score_at_budget.value == pytest.approx(1 / 3)
    assert (gail.score_at_budget.low, gail.score_at_budget.high) == (0, 1)
    assert str(gail.steps) == "> 1,000" and gail.n_reached == 1 and gail.n_stayed == 0
    assert gail.improvement.value == pytest.approx(5 / 6)
    assert (longer.seeds, longer.n_failed, longer.return_at_budget) == ((0, 1), 1, 20.0)
    assert longer.score_final.value == 1 and longer.score_at_budget.value == 0 and str(longer.steps) == "1,300"
    assert tables.merit_lines(list(summaries.values())) == [
        "1 demonstration: IQ-Learn took 300 steps, 0.23 times those of imitation/gail, the best of the others that act "
        "(1,300); to stay there, IQ-Learn took 500 steps, 0.33 times those of imitation/gail (1,500)."
    ]


@pytest.mark.slow
def test_intervals_are_the_same_for_the_same_scores(monkeypatch):
    """Whatever was drawn before, and whatever other algorithms there are."""
    pytest.importorskip("rliable")
    monkeypatch.setattr(statistics, "N_BOOTSTRAP", 50)
    rows = [make_row("iq", seed, UP) for seed in range(4)]
    rows += [make_row("sb3/sqil", seed, [100.0, 50.0 * seed**2]) for seed in range(4)]
    intervals = []
    for seed, others in ((1, []), (2, [make_row("sb3/gail", seed, UP) for seed in range(4)])):
        np.random.seed(seed)
        (sqil,) = [each for each in statistics.summarize(rows + others, PROTOCOL) if each.algo == "sb3/sqil"]
        intervals.append((sqil.score_at_budget, sqil.improvement))
    assert intervals[0] == intervals[1]
    assert intervals[0][0].low < intervals[0][0].high


@pytest.mark.slow
def test_runs_that_failed_are_censored(tmp_path, monkeypatch):
    """Never dropped: two of five that got there are no median run that did."""
    pytest.importorskip("rliable")
    monkeypatch.setattr(statistics, "N_BOOTSTRAP", 20)
    lost = dict(error="RuntimeError: lost", return_mean=None, curve=[], wall_s=7.0)
    rows = [make_row("iq:gamma=0.9", seed, UP, **(lost if seed > 1 else {})) for seed in range(5)]
    rows += [make_row("sb3/bc", seed, [500.0], **(lost if seed else {})) for seed in range(2)]
    rows += [make_row("sb3/gail", 0, UP), make_row("sb3/sqil", 0, UP, **lost), make_row("iq:offline=True", 0, [500.0])]
    summaries = {summary.algo: summary for summary in statistics.summarize(rows, PROTOCOL)}
    ours = summaries["iq:gamma=0.9"]
    assert (ours.seeds, ours.n_failed, ours.n_reached, ours.score_at_budget.value) == ((0, 1), 3, 2, 1.0)
    assert [str(value) for value in (ours.steps, ours.steps_to_stay, ours.seconds)] == ["> 1,000", "> 1,000", "> 7"]
    table = tables.markdown(list(summaries.values()), PROTOCOL, rows)
    shown = "| 1 | iq:gamma=0.9 | 2, 3 failed (preliminary) | 500.0 | **1.00** | > 1,000 | > 1,000 | 2 (0) | > 7 |  |"
    assert shown in table
    assert "| 1 | sb3/bc | 1, 1 failed (preliminary) | 500.0 | **1.00** | never | never |" in table
    assert "Not in the table, as no run ended well: sb3/sqil from 1 demonstration, 1 failed." in table
    # By the first setting of IQ-Learn that takes steps
    assert "iq:gamma=0.9 took > 1,000 steps, more than 3.33 times those of sb3/gail, the best of the others" in table
    assert not tables.merit_lines([summaries[algo] for algo in ("iq:offline=True", "sb3/gail")])
    # No run has a budget of its own, so that these columns would be empty
    assert "own budget" not in table and "score there" not in table and "column of their own" not in table
    assert "P(first is better)" in table
    assert "P(first" not in tables.markdown([ours], PROTOCOL, rows)
    longer = [replace(summaries["sb3/gail"], timesteps=2_000), ours]
    assert "own budget" in tables.markdown(longer, PROTOCOL, rows)
    assert "or the one in the column of their own" in tables.markdown(longer, PROTOCOL, rows)
    # Before its first gradient step online nothing measures how fast it learns
    said = "IQ-Learn takes no gradient step online before `learning_starts`"
    assert said in table
    budget = replace(PROTOCOL, timesteps=2_000)
    assert said not in " ".join(tables.notes([ours], budget))
    assert said in " ".join(tables.notes([replace(ours, steps=statistics.Censored(1_000, False))], budget))
    # Who is the best of those that did not get there is not known
    none = statistics.Censored(1_000, True)
    lines = tables.merit_lines([ours, replace(summaries["sb3/gail"], steps=none, steps_to_stay=none)])
    said = "none of the others that act did it, nor did iq:gamma=0.9 (> 1,000)"
    assert lines == [f"1 demonstration: {said}; to stay there, {said}."]


@pytest.mark.slow
def test_report(tmp_path, monkeypatch):
    pytest.importorskip("rliable")
    monkeypatch.setattr(statistics, "N_BOOTSTRAP", 50)
    pytest.importorskip("matplotlib")
    results = Results(tmp_path)
    results.open(PROTOCOL)
    for row in [*all_rows(), *(make_row("iq", seed, UP, n_demos=3) for seed in range(2))]:
        results.append(row)
    table = write_report(results)
    assert (tmp_path / "table.md").read_text() == table
    assert "| 1 | imitation/gail | 2, 1 failed (preliminary) | 20.0 | 0.00 | 2,000 | 1.00 |" in table
    assert "| 1 | sb3/bc | 3 | 451.0 | 0.90 [0.90, 0.90] |" in table  # an interval takes three runs
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["n_demos"], row["algo"]) for row in rows][-1] == ("3", "iq")
    # Told again from the rows alone
    finals = [row["return_mean"] for row in all_rows() if row["algo"] == "sb3/bc"]
    (bc,) = [row for row in rows if row["algo"] == "sb3/bc"]
    assert float(bc["return_at_budget"]) == np.mean(finals)
    assert float(bc["score"]) == pytest.approx((np.mean(finals) - 20) / 480, abs=1e-4)
    assert (bc["steps_to_90"], bc["steps_censored"]) == ("0.0", "1")
    page = (tmp_path / "report.html").read_text()
    assert "<td><strong>1.00</strong> [1.00, 1.00]</td>" in page  # the best score, as in table.md
    assert "&lt;lost&gt;" in page and "--first-seed 2" in page and "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing else is needed
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("timesteps", "expected"), [(2_000, (2_000, "linear")), (10_000, (None, "log"))])
def test_curves_of_longer_runs(tmp_path, monkeypatch, timesteps, expected):
    """Those of ten times the budget do not press the others together."""
    drawn = []
    monkeypatch.setattr("sb3_iq.plots.figure", lambda rows, xlabel, path, xlim, xscale, known: drawn.append((xlim, xscale)))
    write_curves([make_row("iq", 0, UP), make_row("imitation/gail", 0, UP, timesteps=timesteps)], PROTOCOL, tmp_path)
    assert drawn == [expected]


def test_report_without_the_extra(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.open(PROTOCOL)
    assert "no run has ended well" in write_report(results)
    results.append(make_row("iq", 0, UP))
    monkeypatch.setitem(sys.modules, "rliable", None)
    assert 'pip install ".[compare]"' in write_report(results)
    with pytest.raises(ValueError, match="holds no comparison"):
        write_report(Results(tmp_path / "none"))


@pytest.mark.slow
def test_curves_on_common_steps(tmp_path):
    curve = on_common_steps([([100, 200], [1.0, 2.0]), ([50, 150, 300], [0.0, 4.0, 7.0])])
    np.testing.assert_array_equal(curve.steps, [50, 100, 150, 200])
    np.testing.assert_array_equal(curve.values, [[1, 1, 1.5, 2], [0, 2, 4, 5]])
    with pytest.raises(ValueError, match="expected"):
        Curve(np.arange(3), np.zeros((2, 4)))
    pytest.importorskip("matplotlib")
    many = {f"algorithm {i}": curve for i in range(10)}  # more than there are colours
    panels = [Panel("a", many, {"expert": 6.0}, "return"), Panel("b", {"one": curve})]
    figure([panels, panels], "steps", tmp_path / "curves.png")
    figure([panels], "steps", tmp_path / "log.png", xscale="log")
    # A level line is of what takes no steps; a run with a single evaluation is a dot
    drawn = MagicMock()
    draw(
        drawn,
        {"clone": Curve(np.zeros(1), np.ones((2, 1))), "short": Curve(np.full(1, 100.0), np.ones((2, 1)))},
        ["clone", "short"],
    )
    assert [call.kwargs["label"] for call in drawn.axhline.mock_calls] == ["clone"]
    assert [(call.kwargs["label"], call.kwargs["marker"]) for call in drawn.plot.mock_calls] == [("short", "o")]
    assert (tmp_path / "curves.png").exists() and (tmp_path / "log.png").exists()


def test_command_repeats_a_run():
    protocol = replace(PROTOCOL, env=Environment("CartPole-v1", {"render_mode": None}, ("json",)))
    command = protocol.command(make_run("sb3/gail", seed=4, n_demos=3), "again")
    assert command[:3] == ["python", "-m", "sb3_iq.compare"]
    text = " ".join(command)
    assert "--algos sb3/gail --seeds 1 --first-seed 4" in text and "--env-kwargs render_mode:None --gym-packages json" in text
    assert "--eval-episodes 50 --expert-return 500.0 --out again" in text  # demonstrations without rewards take it
    assert "--baselines mine.yml" in " ".join(replace(protocol, baselines="mine.yml").command(make_run(), "again"))
    assert isinstance(protocol, Protocol)
