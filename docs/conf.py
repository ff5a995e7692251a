"""Sphinx configuration: ``make doc`` writes docs/_build/html, and any warning is an error."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import healthy_logs  # noqa: E402
import held_out  # noqa: E402
import offline_then_online  # noqa: E402
import parallel_envs  # noqa: E402
import reward_retraining  # noqa: E402
import reward_speed  # noqa: E402
import speed  # noqa: E402
import threads  # noqa: E402
from summary import LABELS, runs_of, summary  # noqa: E402
from table import RESULTS  # noqa: E402

import sb3_iq  # noqa: E402
from sb3_iq.compare.suites import by_setting, read_runs, side_by_side, steadiness, successes, table  # noqa: E402
from sb3_iq.iq_learn import Objective  # noqa: E402
from sb3_iq.iq_learn.presets import PRESETS  # noqa: E402
from sb3_iq.iq_learn.settings import ARGUMENTS, OBJECTIVE_KWARGS, PRESET_ONLY  # noqa: E402

project = "sb3-iq"
author = "The sb3-iq developers"
copyright = f"2026, {author}"
version = release = sb3_iq.__version__

# myst_nb is MyST with notebooks, which it runs; sphinx-mathjax-offline brings MathJax, so that reading needs no network either
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "sphinx_copybutton"]
# Links into the documentation of other projects need their inventories from the network, and an unreachable one is a warning:
# a build must not depend on that, so they are for Read the Docs alone
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "stable_baselines3": ("https://stable-baselines3.readthedocs.io/en/master", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
    }

exclude_patterns = ["_build", "**.ipynb_checkpoints"]
# Notebooks are run anew for each build, and an error in one is an error of the build
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
# Jupyter's kernels find the package in a checkout, too
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Names of this project have to resolve; those of others do where there is intersphinx
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!sb3_iq).*"), (r"py:class", r".*\.Self\w+")]

html_theme = "sphinx_rtd_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"sb3-iq {release}"


PRESET_ROWS = {f"{name}, {kind}": row for name, kinds in PRESETS.items() for kind, row in kinds.items()}


def presets_table() -> str:
    """:return: what each preset sets, as a Markdown table"""
    defaults = {name: getattr(Objective, name) for name in OBJECTIVE_KWARGS}
    columns = [{**defaults, **row.settings} for row in PRESET_ROWS.values()]
    lines = ["| setting | " + " | ".join(PRESET_ROWS) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in (*ARGUMENTS, *PRESET_ONLY, *OBJECTIVE_KWARGS):
        lines.append(f"| `{name}` | " + " | ".join(f"`{text(column[name])}`" for column in columns) + " |")
    return "\n".join(lines)


def special_presets_table() -> str:
    """:return: what each preset sets instead in special cases, as a Markdown table"""
    lines = ["| preset, actions | where | settings instead |", "|---|---|---|"]
    for preset, row in PRESET_ROWS.items():
        cases = {
            "observations hold an image": row.images,
            **{f"environments `{family}`": named for family, named in row.families.items()},
            "`offline=True`": row.offline,
            "`offline=True`, and an image": row.offline_images,
            "the offline solution fails": row.solution_fails,
            "state-only demonstrations": row.state_only,
        }
        for where, named in cases.items():
            changed = {name: value for name, value in named.items() if row.settings.get(name) != value}
            if changed:
                settings = ", ".join(f"`{name}={text(value)}`" for name, value in changed.items())
                lines.append(f"| {preset} | {where} | {settings} |")
    return "\n".join(lines)


def text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {text(item)}" for key, item in value.items()) + "}"
    return value.__name__ if isinstance(value, type) else repr(value)


# Tables that would be out of date if they were copied: {{ name }} in a page
suites = {f"results_{path.stem.replace('-', '_')}": read_runs(path) for path in RESULTS.glob("*.jsonl")}
myst_substitutions = {name: table(runs) for name, runs in suites.items() if runs}
myst_substitutions |= {name.replace("results_", "compared_"): side_by_side(runs) for name, runs in suites.items() if runs}
myst_substitutions["compared_mujoco_last_five"] = side_by_side(suites["results_mujoco"], last_five=True)
myst_substitutions |= {"by_setting_ablation": by_setting(suites["results_ablation"]), "summary": summary()}
with_clones = suites["results_continuous"] + suites["results_continuous_bc"]
myst_substitutions["compared_with_clones"] = side_by_side(with_clones, last_five=True)
myst_substitutions["steadiness"] = steadiness(suites["results_continuous"])
myst_substitutions["successes"] = successes(suites["results_robots"])
# A row for each film of the gallery that has results
FILMED = {
    "cartpole": {"offline-demos": [("CartPole-v1", 10)]},
    "hopper": {"continuous": [("Hopper-v5", 1)], "continuous-bc": [("Hopper-v5", 1)]},
    "lunarlander": {"offline-demos": [("LunarLander-v3", 3)]},
    "pong": {"games": [("PongFrames-v0", 20)]},
    "car": {"games": [("CarRacing-v3", 20)]},
}
myst_substitutions |= {f"row_{name}": side_by_side(runs_of(tasks), LABELS[:2]) for name, tasks in FILMED.items()}
ARM = {"push": ("FetchPush-v4", 50), "pick": ("FetchPickAndPlace-v4", 50)}
myst_substitutions |= {f"row_{name}": successes(runs_of({"robots": [task]})) for name, task in ARM.items()}
myst_substitutions |= {"presets": presets_table(), "special_presets": special_presets_table()}
OTHERS = ("speed", "threads", "parallel-envs", "healthy-logs", "reward-speed", "reward-retraining", "offline-then-online")
lines = {name: [json.loads(line) for line in (RESULTS / f"{name}.jsonl").open()] for name in OTHERS}
myst_substitutions |= {"speed": "\n\n".join(map(speed.table, lines["speed"])), "threads": threads.table(lines["threads"])}
myst_substitutions["parallel_envs"] = parallel_envs.table(lines["parallel-envs"])
myst_substitutions["offline_then_online"] = offline_then_online.table(lines["offline-then-online"])
myst_substitutions["reward_speed"] = reward_speed.table(lines["reward-speed"][-1:])
myst_substitutions["reward_retraining"] = reward_retraining.table(lines["reward-retraining"])
myst_substitutions["healthy_logs"] = healthy_logs.table(lines["healthy-logs"])
myst_substitutions["held_out"] = held_out.table(held_out.read())
