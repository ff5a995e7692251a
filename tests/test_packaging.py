"""What is inside the built package, and what importing it costs."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION = (ROOT / "sb3_iq" / "version.txt").read_text().strip()
# What the build reads; a copy, so that leftovers of earlier builds in the checkout cannot help
SOURCES = ["sb3_iq", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE", "NOTICE", "README.md", "CHANGELOG.md"]
SOURCES += ["CITATION.cff", "Makefile", "constraints", "benchmarks", "docs", "examples", "scripts", "tests"]
HEAVY = ["datasets", "pandas", "pyarrow", "matplotlib", "imitation", "rl_zoo3", "minari"]


def data_files() -> set[str]:
    """The files of the package that are not Python, relative to the checkout."""
    bundled = (ROOT / "sb3_iq" / "demonstrations" / "bundled").rglob("*")
    names = {path.relative_to(ROOT).as_posix() for path in bundled if path.is_file() and "__pycache__" not in path.parts}
    return names | {"sb3_iq/py.typed", "sb3_iq/version.txt"}


def modules() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "sb3_iq").rglob("*.py")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from the sdist (as an installer would), without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            shutil.copy(path, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    result = subprocess.run(command, cwd=out, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_wheel(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        dist_info = f"sb3_iq-{VERSION}.dist-info"
        metadata = email.message_from_bytes(wheel.read(f"{dist_info}/METADATA"))
        for name in data_files():
            assert wheel.read(name) == (ROOT / name).read_bytes(), name
    assert data_files() | modules() <= names
    # Nothing else: no tests, no examples at the top of somebody's site-packages
    assert {name for name in names if not name.startswith(dist_info)} == data_files() | modules()
    assert {f"{dist_info}/licenses/LICENSE", f"{dist_info}/licenses/NOTICE"} <= names
    assert metadata["Name"] == "sb3-iq"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.10"
    extras = {"zoo", "imitation", "minari", "hub", "compare", "ray", "demo", "tests", "docs"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def test_sdist(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    expected = {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CITATION.cff", "setup.cfg", "pyproject.toml"}
    expected |= {
        "constraints/current.txt",
        "constraints/imitation.txt",
        "docs/index.md",
        "examples/iq_learn_single_file.py",
        "tests/conftest.py",
    }
    assert data_files() | modules() | expected <= names


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
