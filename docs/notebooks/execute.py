"""
Execute a notebook as ``make doc`` does, without Jupyter: code cells run in one namespace, and what they print, the value of
their last line and their figures go into a page beside the notebook. A cell that fails is an error.

    python docs/notebooks/execute.py docs/notebooks/reward_recovery.ipynb
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt


def run_cell(code: str, namespace: dict[str, Any]) -> tuple[str, list[Any]]:
    """
    :param code: a code cell
    :param namespace: the names of the notebook
    :return: the text that it leaves, and its figures
    """
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    if hasattr(value, "savefig"):
        figures = [*(figure for figure in figures if figure is not value), value]
    elif value is not None and not figures:
        printed.write(repr(value))
    return printed.getvalue().strip(), figures


def page_of(notebook: Path) -> str:
    """
    :param notebook: the notebook; pictures are written beside it
    :return: the executed notebook as a page in MyST's Markdown
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    parts, n_pictures = [], 0
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```{{code-block}} python\n{source}\n```")
        text, figures = run_cell(source, namespace)
        if text:
            parts.append(f"```{{code-block}} text\n{text}\n```")
        for figure in figures:
            n_pictures += 1
            picture = notebook.with_name(f"{notebook.stem}-{n_pictures}.png")
            figure.savefig(picture, dpi=100, bbox_inches="tight")
            parts.append(f"![Figure {n_pictures} of the notebook]({picture.name})")
        plt.close("all")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.with_suffix(".md").write_text(page_of(path))
