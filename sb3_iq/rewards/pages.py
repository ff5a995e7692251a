"""A report as a page of HTML that needs no other file."""

import base64
import html
from collections.abc import Sequence
from typing import Any

STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.3em .8em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
)


def html_page(report: Any, png: bytes) -> str:
    """
    :param report: a :class:`~sb3_iq.rewards.reporting.Report`
    :param png: its picture
    :return: the page
    """
    name = html.escape(report.env)
    per_episode = [(key, str(correlation)) for key, correlation in report.per_episode.items()]
    per_step = [(key, str(correlation)) for key, correlation in report.per_step.items()]
    if report.epic is not None:
        per_step.append(("EPIC distance", f"{report.epic:.2f}"))
    actors = report.actors
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Recovered reward: {name}</title>"
        f"<style>{STYLE}</style></head><body><h1>The recovered reward of {name}</h1>"
        f"<p>The reward has the form {report.form}. {len(report.episodes)} episodes of policies from the imitator's to a "
        "random one. Intervals are 95 %, by bootstrap over episodes. Where length alone correlates as well as the recovered "
        "reward, read the line with length removed.</p>"
        f"<img alt='Scatter plots, and rewards along the best and the worst episode' src='data:image/png;base64,"
        f"{base64.b64encode(png).decode()}'>"
        f"<h2>Sums over episodes</h2>{_table(['', 'correlation'], per_episode)}"
        f"<h2>Single steps</h2>{_table(['', 'correlation'], per_step)}"
        f"<h2>Who played</h2>{_table(list(actors[0]), [tuple(map(str, row.values())) for row in actors])}</body></html>\n"
    )


def _table(header: list[str], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
