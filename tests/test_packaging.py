"""What is inside the built package, and what importing it costs."""

import configparser
import email
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "sb3_iq" / "version.txt").read_text().strip()
# What the build reads; a copy, so that leftovers of earlier builds in the checkout cannot help
SOURCES = [
    "sb3_iq",
    "setup.cfg",
    "pyproject.toml",
    "MANIFEST.in",
    "LICENSE",
    "NOTICE",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
SOURCES += ["CITATION.cff", "Makefile", "constraints", "benchmarks", "docs", "examples", "scripts", "tests"]
SOURCES += ["setup.py", "startup", "hyperparams"]
HEAVY = ["datasets", "pandas", "pyarrow", "matplotlib", "imitation", "rl_zoo3", "minari"]


# What lies elsewhere in the checkout than in the wheel
START_UP = {f"startup/{name}": name for name in ("_sb3_iq_zoo/__init__.py", "sb3_iq_zoo.pth", "sb3_iq_zoo.start")}
MOVED = START_UP | {"hyperparams/iq.yml": "sb3_iq/hyperparams/iq.yml"}


def data_files() -> set[str]:
    """The files of the package that are not Python, relative to the checkout."""
    bundled = (ROOT / "sb3_iq" / "demonstrations" / "bundled").rglob("*")
    names = {path.relative_to(ROOT).as_posix() for path in bundled if path.is_file() and "__pycache__" not in path.parts}
    return names | {"sb3_iq/py.typed", "sb3_iq/version.txt", "sb3_iq/imitation/baselines.yml"}


def modules() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "sb3_iq").rglob("*.py")}


def wheel_names() -> dict[str, str]:
    """From each file of the checkout to its name in the wheel."""
    return {name: name for name in data_files() | modules()} | MOVED


def copied_sources(folder: Path) -> Path:
    folder.mkdir()
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "_build"))
        else:
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from the sdist (as an installer would), without a network."""
    out = tmp_path_factory.mktemp("dist")
    source = copied_sources(out / "source")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    result = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_wheel(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        dist_info = f"sb3_iq-{VERSION}.dist-info"
        metadata = email.message_from_bytes(wheel.read(f"{dist_info}/METADATA"))
        for source, name in wheel_names().items():
            assert wheel.read(name) == (ROOT / source).read_bytes(), name
    # Nothing else: no tests, no examples at the top of somebody's site-packages
    assert {name for name in names if not name.startswith(dist_info)} == set(wheel_names().values())
    assert {f"{dist_info}/licenses/LICENSE", f"{dist_info}/licenses/NOTICE"} <= names
    assert metadata["Name"] == "sb3-iq"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.10"
    extras = {
        "zoo",
        "imitation",
        "minari",
        "hub",
        "compare",
        "distributed",
        "ray",
        "export",
        "rewards",
        "experts",
        "play",
        "demo",
        "tests",
        "docs",
    }
    assert set(metadata.get_all("Provides-Extra", [])) == extras


@pytest.mark.parametrize("extra", ["zoo", "imitation", "compare"])
def test_extras_with_rliable_have_a_pandas_that_it_can_be_imported_with(extra):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert "pandas<3" in config["options.extras_require"][extra].split("\n")


def test_sdist(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    expected = {
        "LICENSE",
        "NOTICE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "setup.cfg",
        "pyproject.toml",
    }
    expected |= {
        "constraints/current.txt",
        "constraints/imitation.txt",
        "docs/index.md",
        "examples/iq_learn_single_file.py",
        "tests/conftest.py",
    }
    assert set(wheel_names()) | expected <= names


@pytest.fixture(scope="module")
def editable(tmp_path_factory):
    """The wheel of an editable install."""
    out = tmp_path_factory.mktemp("editable")
    code = f"import setuptools.build_meta as backend; backend.build_editable({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copied_sources(out / "source"), capture_output=True, check=True)
    return next(out.glob("*.whl"))


@pytest.mark.parametrize("kind", ["built", "editable"])
def test_start_up_files_come_and_go(kind, request, tmp_path):
    wheel = request.getfixturevalue(kind)
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = next((tmp_path / "venv").rglob("site-packages"))
    before = sorted(packages.rglob("*"))
    # A checkout on PYTHONPATH would be an installed package to pip
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SB3_IQ_ZOO")}

    def pip(*arguments):
        command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *arguments]
        subprocess.run(command, env=environ, capture_output=True, check=True)

    def start(**variables):
        """What a bare start prints: whether the hook is there, and any complaint."""
        code = "import sys; print(sum(getattr(finder, '__module__', '') == '_sb3_iq_zoo' for finder in sys.meta_path))"
        command = [str(python), "-c", code]
        result = subprocess.run(command, cwd=tmp_path, env=environ | variables, capture_output=True, text=True)
        return result.stdout.strip(), result.stderr

    pip("install", "--no-deps", "--no-index", str(wheel[-1] if isinstance(wheel, tuple) else wheel))
    # Nothing that RL Zoo or this package need is installed here
    assert start() == ("1", "")
    assert start(SB3_IQ_ZOO="0") == ("0", "")
    pip("uninstall", "--yes", "sb3-iq")
    assert sorted(packages.rglob("*")) == before
    assert start() == ("0", "")


def test_mypy_finds_an_editable_install(editable, tmp_path):
    venv.create(tmp_path / "venv", symlinks=True)
    packages = next((tmp_path / "venv").rglob("site-packages"))
    with zipfile.ZipFile(editable) as wheel:
        wheel.extractall(packages)
    (tmp_path / "mine.py").write_text("from sb3_iq import IQLearn\n\nmodel: IQLearn\n")
    python = next(path for path in (tmp_path / "venv").glob("*/python*") if path.stem == "python")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--follow-imports=skip", "mine.py"]
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_start_up_file_without_its_package(tmp_path):
    # As after a checkout was moved away: silence
    code = (ROOT / "startup" / "sb3_iq_zoo.pth").read_text()
    result = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_bundled_demonstrations_exist():
    assert any(name.startswith("sb3_iq/demonstrations/bundled/CartPole-v1/") for name in data_files())


def test_version():
    import sb3_iq

    assert sb3_iq.__version__ == VERSION
    # the other places where a release writes its number
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## Release {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def imported_by(statement: str) -> set[str]:
    """The heavy packages in ``sys.modules`` after an import, in a process of its own."""
    code = f"{statement}; import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.both_stacks
def test_import_is_light():
    # Stable-Baselines3 may import pandas or matplotlib itself (its releases differ in this): that is not ours
    own = imported_by("import sb3_iq") - imported_by("import stable_baselines3, sb3_contrib")
    assert own == set()


@pytest.mark.parametrize("stack", ["current", "imitation"])
def test_constraints_name_one_torch(stack):
    lines = (ROOT / "constraints" / f"{stack}.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    # exact versions, and none that only one machine has (a local path, a local version such as +cpu)
    assert all("==" in pin and "+" not in pin and "/" not in pin and "@" not in pin for pin in pins)
