"""How the code is built: nothing below IQLearn knows IQLearn, no module imports itself by way of others, no file is long."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

import sb3_iq

ROOT = Path(sb3_iq.__file__).parent
MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
BELOW = {name: path for name, path in MODULES.items() if name.startswith("sb3_iq.iq_learn.") and path.stem != "iq_learn"}


@functools.cache
def all_nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


def nodes(path, *kinds):
    return [node for node in all_nodes(path) if isinstance(node, kinds)]


def imported(path):
    """:return: the modules of sb3_iq that a file imports"""
    names = {alias.name for node in nodes(path, ast.Import) for alias in node.names}
    for node in nodes(path, ast.ImportFrom):
        for name in (f"{node.module}.{alias.name}" for alias in node.names):
            names.add(name if name in MODULES else str(node.module))
    return {name for name in names if name in MODULES}


@pytest.mark.parametrize("name", BELOW)
def test_nothing_below_the_algorithm_knows_it(name):
    path = BELOW[name]
    words = {node.id for node in nodes(path, ast.Name)} | {node.attr for node in nodes(path, ast.Attribute)}
    words |= {alias.name for node in nodes(path, ast.Import, ast.ImportFrom) for alias in node.names}
    assert not {"IQLearn", "TYPE_CHECKING"} & words
    assert "sb3_iq.iq_learn.iq_learn" not in imported(path)
    arguments = {argument.arg for node in nodes(path, ast.arguments) for argument in (*node.args, *node.kwonlyargs)}
    assert "model" not in arguments


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter({name: imported(path) for name, path in MODULES.items()}).prepare()


def test_no_file_is_long():
    for name, path in MODULES.items():
        if name.startswith("sb3_iq.iq_learn"):
            assert len(path.read_text().splitlines()) <= (450 if path.stem == "iq_learn" else 350), name
