"""Sphinx configuration: ``make doc`` writes docs/_build/html, and any warning is an error."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from table import RESULTS, read_runs, table  # noqa: E402

import sb3_iq  # noqa: E402
from sb3_iq.iq_learn.presets import (  # noqa: E402
    CONTINUOUS,
    DISCRETE,
    LS_IQ,
    LS_IQ_CONTINUOUS,
    PAPER_CONTINUOUS,
    PAPER_DISCRETE,
)

project = "sb3-iq"
author = "The sb3-iq developers"
copyright = f"2026, {author}"
version = release = sb3_iq.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
# Links into the documentation of other projects need their inventories from the network, and an unreachable one is a warning:
# a build must not depend on that, so they are for Read the Docs alone
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "stable_baselines3": ("https://stable-baselines3.readthedocs.io/en/master", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
    }

exclude_patterns = ["_build"]
# Formulas are typeset by MathJax from its CDN when a page is read; building needs no network
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


def presets_table() -> str:
    """:return: what the arguments that are ``None`` stand for, as a Markdown table"""
    presets = {
        "default, Discrete": DISCRETE,
        "default, Box": CONTINUOUS,
        "paper, Discrete": PAPER_DISCRETE,
        "paper, Box": PAPER_CONTINUOUS,
        "ls-iq, Discrete": LS_IQ,
        "ls-iq, Box": LS_IQ_CONTINUOUS,
    }
    columns = [{name: text(value) for name, value in asdict(settings).items()} for settings in presets.values()]
    rows = [f"| `{name}` | " + " | ".join(f"`{column[name]}`" for column in columns) + " |" for name in columns[0]]
    return "\n".join(["| argument | " + " | ".join(presets) + " |", "|---" * (1 + len(presets)) + "|", *rows])


def text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {text(item)}" for key, item in value.items()) + "}"
    return value.__name__ if isinstance(value, type) else repr(value)


# Tables that would be out of date if they were copied: {{ name }} in a page
suites = {f"results_{path.stem.replace('-', '_')}": read_runs(path) for path in RESULTS.glob("*.jsonl")}
myst_substitutions = {name: table(runs) for name, runs in suites.items() if runs} | {"presets": presets_table()}
