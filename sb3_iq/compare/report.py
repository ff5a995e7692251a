"""From the rows of a folder to its table, its plot and one page that holds them all."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from sb3_iq import plots
from sb3_iq.compare import tables
from sb3_iq.compare.comparison import Protocol, how_many
from sb3_iq.compare.curves import curve_of
from sb3_iq.compare.results import Results, Row
from sb3_iq.compare.statistics import groups, summarize
from sb3_iq.demonstrations.errors import how_to_install

FILES = ("table.md", "table.csv", "curves.png", "report.html")
"""What :func:`write_report` makes of the rows."""
# Those that most comparisons have: each has its colour in all figures
COLORED = ("iq", "sb3/bc", "sb3/sqil", "sb3/gail", "imitation/gail", "imitation/airl")

INSTALL = f"tables and plots need more packages. {how_to_install('compare')}; then python -m sb3_iq.compare --report"

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto; padding: 0 1rem; }
ul, p, pre { max-width: 76rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.first td { border-top: 2px solid var(--line); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
code { font-size: .85em; background: var(--soft); padding: .1em .3em; border-radius: 3px; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; border-radius: 4px; }
summary { cursor: pointer; } .error { color: #c33; }
"""


def write_report(results: Results) -> str:
    """
    Write ``table.md``, ``table.csv``, ``curves.png`` and ``report.html`` beside the rows.

    :param results: a folder with rows
    :return: the table, or what to install, or why there is none
    :raises ValueError: if the folder holds no comparison
    """
    protocol = results.read_protocol()
    if protocol is None:
        raise ValueError(f"{results.folder} holds no comparison: give the --out of one")
    rows = results.read()
    if not any(not row["error"] for row in rows):
        return "no run has ended well yet: there is nothing to tabulate"
    try:
        summaries = summarize(rows, protocol)
        write_curves(rows, protocol, results.folder / "curves.png")
    except ImportError as error:
        return f"{error}: {INSTALL} {results.folder}"
    table = tables.markdown(summaries, protocol, rows)
    (results.folder / "table.md").write_text(table, encoding="utf-8")
    (results.folder / "table.csv").write_text(tables.as_csv(summaries, protocol), encoding="utf-8")
    body = tables.body_of(summaries, protocol)
    merits, notes = tables.merit_lines(summaries), tables.notes(summaries, protocol, rows)
    image = (results.folder / "curves.png").read_bytes()
    page = make_page(protocol, body, merits, notes, image, rows)
    (results.folder / "report.html").write_text(page, encoding="utf-8")
    return table


def write_curves(rows: Sequence[Row], protocol: Protocol, path: Path) -> None:
    """
    :param rows: of one comparison
    :param protocol: of the comparison
    :param path: the image to write: a panel for each number of demonstrations. What takes no environment steps is a level line
    """
    panels: dict[str, dict[str, plots.Curve]] = {}
    for (n_demos, algo), members in groups(rows).items():
        good = [row for row in members if not row["error"]]
        if good:
            title = how_many(n_demos)
            curve = curve_of(good)
            assert curve is not None
            panels.setdefault(title, {})[algo] = curve
    longest = max(row["timesteps"] for row in rows)
    levels = {"expert": protocol.expert_return, "random": protocol.random_return}
    ylabels = [f"return, {protocol.env.env_id}"] + [""] * (len(panels) - 1)
    row = [plots.Panel(title, panels[title], levels, ylabel) for title, ylabel in zip(panels, ylabels, strict=True)]
    # Those that run for ten times the budget would press the others together at the left
    wide = longest > 2 * protocol.timesteps
    plots.figure([row], "environment steps", path, None if wide else longest, "log" if wide else "linear", COLORED)


def make_page(
    protocol: Protocol,
    body: Sequence[Sequence[str]],
    merits: Sequence[str],
    notes: Sequence[str],
    image: bytes,
    rows: Sequence[Row],
) -> str:
    """
    :param protocol: of the comparison
    :param body: rows of the table
    :param merits: sentences on steps
    :param notes: how to read it
    :param image: the curves, a PNG
    :param rows: the runs
    :return: the page, which needs no other file
    """
    header, body = tables.filled(body)
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    lines, previous = [], ""
    for cells in body:
        start = ' class="first"' if cells[0] != previous else ""
        previous = cells[0]
        lines.append(f"<tr{start}>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    source = base64.b64encode(image).decode("ascii")
    title = f"{protocol.env.env_id}: {protocol.timesteps:,} steps"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1>",
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>',
            _list("Environment steps to 90 % of the expert", merits),
            f'<h2>Curves</h2><img alt="Returns over environment steps" src="data:image/png;base64,{source}">',
            "<p>Means of the seeds; bands are one standard error. Level lines take no environment steps.</p>",
            _list("How to read the table", notes),
            "<h2>How to repeat each cell</h2>",
            *(_cell(n_demos, algo, members) for (n_demos, algo), members in groups(rows).items()),
            "</body></html>\n",
        ]
    )


def _cell(n_demos: int, algo: str, rows: Sequence[Row]) -> str:
    """Return the runs of one cell, folded."""
    items = []
    for row in rows:
        end = f'<span class="error">{_text(row["error"])}</span>' if row["error"] else f"return {row['return_mean']:.1f}"
        items.append(f"<p>seed {row['seed']}: {end}</p><pre>{_text(row['command'])}</pre>")
    versions = ", ".join(f"{name} {version}" for name, version in rows[0].get("versions", {}).items())
    settings = f"<p>Settings: <code>{_text(str(rows[0]['settings']))}</code></p>" if rows[0]["settings"] else ""
    summary = f"{algo}, {how_many(n_demos)}"
    return f"<details><summary>{_text(summary)}</summary>{settings}{''.join(items)}<p>{_text(versions)}</p></details>"


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f"<h2>{_text(title)}</h2><ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"


def _text(text: str) -> str:
    """Return a text for HTML, with `code` and **bold** as such."""
    parts = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text)).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
