"""What the README and the documentation show runs as it stands, and what they claim in tables is so."""

import configparser
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from gymnasium import spaces

from sb3_iq import IQLearn
from tests.utils import BOX, DICT, DISCRETE, RandomEnv, random_trajectories

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A block of code in a page, and the HTML comment before it: ``needs: NAME`` or ``not executed: REASON``."""

    language: str
    code: str
    comment: str


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    pattern = r"(?:<!-- ([^>]+) -->\n)?^```(\w+)\n(.*?)^```$"
    found = re.findall(pattern, (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(language, code, comment) for comment, language, code in found]


PYTHON = [(page, block) for page in PAGES for block in read_blocks(page) if block.language == "python"]
WITH_NEEDS = [(page, block) for page, block in PYTHON if block.comment.startswith("needs: ")]
COMMANDS = [(page, i) for page in PAGES for i, block in enumerate(read_blocks(page)) if block.language == "bash"]


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON}))
def test_python_code(page, tmp_path, monkeypatch, capsys):
    """The blocks of a page are one program."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for _, block in (item for item in PYTHON if item[0] == page):
        assert re.match(r"$|needs: \w+$|not executed: \w+", block.comment)
        if not block.comment:
            exec(compile(block.code, page, "exec"), namespace)
    if page == "README.md":
        assert all(len(block.code.splitlines()) <= 15 for block in read_blocks(page) if block.language == "python")
        assert "return: 500 +- 0" in capsys.readouterr().out
        assert (tmp_path / "iq_cartpole.zip").exists()


@pytest.mark.parametrize(("page", "block"), WITH_NEEDS, ids=[f"{page}-{block.comment}" for page, block in WITH_NEEDS])
def test_python_code_with_needs(page, block, tmp_path, monkeypatch):
    """These blocks stand alone: what they need, a variable or a package, is not everywhere."""
    need = block.comment.removeprefix("needs: ")
    if not (os.environ.get(need) or importlib.util.find_spec(need)):
        pytest.skip(f"needs {need}")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, page, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize(("page", "index"), COMMANDS)
def test_commands(page, index, tmp_path):
    """A command whose output is shown below it prints just that; of the others, what they call exists."""
    blocks = read_blocks(page)
    shown = blocks[index + 1].code if blocks[index + 1 :] and blocks[index + 1].language == "text" else None
    for command in blocks[index].code.replace("\\\n", " ").splitlines():
        words = shlex.split(command.partition(" #")[0])
        if shown is not None:
            result = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
            assert (result.returncode, result.stdout) == (0, shown), result.stderr[-2000:]
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), command
        elif words[:1] == ["python"]:
            assert (ROOT / words[1]).exists(), command
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command


def sources_of(words):
    """:return: the text of the files that read the options of a command; None if they are not here"""
    if words[:2] == ["python", "-m"]:
        spec = importlib.util.find_spec(words[2])
    elif words[0] == "rl_zoo3":
        spec = importlib.util.find_spec("rl_zoo3")
    else:
        return "".join(path.read_text() for path in (ROOT / words[1]).parent.glob("*.py")) if words[0] == "python" else None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    beside = origin.parent.glob("*.py") if origin.stem in ("__init__", "__main__") else [origin]
    text = "".join(path.read_text() for path in [*beside, ROOT / "sb3_iq" / "recording.py"])
    # RL Zoo 2.2.1 has fewer options than the pages show, which say so
    return None if words[0] == "rl_zoo3" and "--trial-id" not in text else text


@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS}))
def test_options_of_commands_exist(page):
    blocks = (block.code for block in read_blocks(page) if block.language in ("bash", "text"))
    for command in "\n".join(blocks).replace("\\\n", " ").splitlines():
        command = re.sub(r"^(srun |[A-Z_]+=\S+ )+", "", command.partition(" #")[0])
        if not command.startswith(("python ", "rl_zoo3 ")):
            continue
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "sb3_iq.zoo"]:
            words = ["rl_zoo3", *words[3:]]
        sources = sources_of(words)
        for option in (word for word in words if re.match(r"--?[a-z]", word) and word != "-m"):
            assert sources is None or f'"{option}"' in sources, command


def test_readme_links_and_commands():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_to_the_web_are_well_formed():
    """None of them is opened: a test needs no network. Papers are named by their abstract's page."""
    python = [path.relative_to(ROOT).as_posix() for folder in ("sb3_iq", "examples") for path in (ROOT / folder).rglob("*.py")]
    texts = {name: (ROOT / name).read_text() for name in [*PAGES, *python, "NOTICE", "CITATION.cff", "CONTRIBUTING.md"]}
    links = [(name, link) for name, text in texts.items() for link in re.findall(r"https?://[^\s<>\"'`\])]+", text)]
    assert len(links) > 40
    for name, link in links:
        assert link.startswith("https://"), (name, link)
        if "arxiv.org" in link:
            assert re.match(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}\W*$", link), (name, link)


def test_readme_is_short_and_its_table_is_that_of_the_results(monkeypatch):
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    summary = importlib.import_module("summary")
    shown = text.partition(summary.START)[2].partition(summary.END)[0]
    assert shown.strip() == summary.summary()  # if not: python benchmarks/summary.py --write
    assert len(shown.strip().splitlines()) <= 2 + 8


def test_each_film_of_the_gallery_has_its_command_and_its_row():
    folder = ROOT / "docs"
    sections = (folder / "gallery.md").read_text().split("\n## ")[1:]
    for section in sections:
        assert re.search(r"^```bash\n(MUJOCO_GL=egl )?python \S+\.py ", section, flags=re.MULTILINE), section
        assert re.search(r"^\{\{ row_\w+ \}\}$|^\|---", section, flags=re.MULTILINE), section
        (picture,) = re.findall(r"```\{image\} (\S+)", section)
        assert (folder / picture).stat().st_size <= 1_000_000, picture
    shown = {Path(name).name for name in re.findall(r"_static/gallery/(\S+)", "".join(sections))}
    assert shown == {path.name for path in (folder / "_static" / "gallery").iterdir()}


def test_notebooks_show_their_figures():
    """Without this line Jupyter prints a figure's name in its place."""
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        code = "".join("".join(source) for source in cells)
        if re.search(r"matplotlib|figure_of|\.plot\(", code):
            assert code.startswith("%matplotlib inline\n"), path.name


def sentences(text):
    """:return: those of a page; code, formulas and names count as one word each, cells of tables are apart"""
    text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$|<!--.*?-->", "\n\n", text, flags=re.DOTALL | re.MULTILINE)
    for pattern in (r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$"):
        text = re.sub(pattern, "x", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s|\||#)", text):
        for part in block.split("|"):
            yield from re.split(r"(?<=[.!?])[\"*)]*\s+", part)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_sentences_are_short(page):
    assert [s for s in sentences((ROOT / page).read_text()) if len(s.split()) > 35] == []


def test_continuous_integration_covers_what_the_package_claims():
    yaml = pytest.importorskip("yaml")
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    claimed = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert matrix["python-version"] == claimed
    assert {f"{stack}.txt" for stack in matrix["stack"]} == {path.name for path in (ROOT / "constraints").iterdir()}
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml"):
        content = yaml.safe_load(form.read_text())
        assert content["name"] and content["description"] and content["body"], form


SPACES = {
    "Discrete": DISCRETE,
    "Box": BOX,
    "MultiDiscrete": spaces.MultiDiscrete([3, 4]),
    "MultiBinary": spaces.MultiBinary(4),
    "Dict": DICT,
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("offline", [False, True])
def test_table_of_spaces(name, offline):
    """What "Can I use?" says of a kind of space, as actions and as observations."""

    def usable(observation_space, action_space):
        env = RandomEnv(observation_space, action_space)
        policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
        options = dict(offline=offline, batch_size=8, learning_starts=4, buffer_size=50, policy_kwargs=dict(net_arch=[8]))
        # Dict actions have no arrays: they are refused before the demonstrations are read
        data = "none" if isinstance(action_space, spaces.Dict) else random_trajectories(env)
        try:
            model = IQLearn(policy, env, data, **options)
        except ValueError as error:
            assert "only" in str(error) and "are supported" in str(error)
            return False
        return model.learn(8) is model

    text = (ROOT / "docs" / "modules" / "iq_learn.md").read_text()
    as_action, as_observation = re.search(rf"^\| {name} \| (\S+) \| (\S+) \|$", text, flags=re.MULTILINE).groups()
    assert usable(BOX, SPACES[name]) == (as_action == "yes")
    for action_space in (DISCRETE, BOX):
        assert usable(SPACES[name], action_space) == (as_observation == "yes")


def named_tests():
    """:return: the tests that pages name, and the pages"""
    pattern = r"`(test_\w+\.py)::(test_\w+)`"
    return [(page, *names) for page in PAGES for names in re.findall(pattern, (ROOT / page).read_text())]


def test_named_tests_exist():
    assert len(named_tests()) > 30
    for page, file, name in named_tests():
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), flags=re.MULTILINE), (page, file, name)


@pytest.mark.parametrize("page", ["docs/modules/iq_learn.md", "docs/guide/sb3.md"])
def test_each_row_of_what_can_be_used_names_a_test(page):
    text = (ROOT / page).read_text()
    tables = re.findall(r"^\|[^\n]*\| test \|\n\|[-|]+\|\n((?:\|[^\n]*\|\n)+)", text, flags=re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert rows and all(re.search(r"`test_\w+\.py::test_\w+` \|$", row) for row in rows)


def test_table_of_extras():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    table = (ROOT / "docs" / "guide" / "install.md").read_text().partition("| extra | for |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == set(config["options.extras_require"])


def test_logged_keys(tmp_path, monkeypatch):
    """The page of the logs explains every key that there is."""
    from stable_baselines3.common.logger import configure

    from sb3_iq.iq_learn import reference_policy

    # Whatever its episodes earn, the policy is held
    monkeypatch.setattr(reference_policy, "MORE", 1e6)
    keys = set()
    options = dict(ent_coef="auto", objective_kwargs=dict(gradient_penalty=1.0), bc_coef=0.1)
    for action_space in (DISCRETE, BOX):
        env = RandomEnv(BOX, action_space)
        model = IQLearn("MlpPolicy", env, random_trajectories(env), batch_size=8, learning_starts=10, **options)
        model.set_logger(configure(str(tmp_path), ["csv"]))
        model.learn(20, log_interval=1)
        keys |= set((tmp_path / "progress.csv").read_text().splitlines()[0].split(","))
    text = (ROOT / "docs" / "guide" / "logs.md").read_text()
    explained = set(re.findall(r"`(train/\w+)`", text))
    assert explained == {key for key in keys if key.startswith("train/")}


def test_bounds_of_values():
    """The page of the logs tells how large Q-values can get by default."""
    text = " ".join((ROOT / "docs" / "guide" / "logs.md").read_text().split())
    told = re.search(r"By default that is ([\d.]+) with discrete actions, and ([\d.]+) with continuous ones", text).groups()
    for action_space, number in zip((DISCRETE, BOX), told, strict=True):
        env = RandomEnv(BOX, action_space)
        model = IQLearn("MlpPolicy", env, random_trajectories(env))
        assert model.objective.value_bound == pytest.approx(float(number), rel=0.01)
