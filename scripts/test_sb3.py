"""
Runs Stable-Baselines3's own tests with IQLearn in the place of SAC and DQN (``make test-sb3``).

The tests are those of the installed version, from its source distribution. They are downloaded into a temporary folder, for
they are not part of this project. What can't apply is listed, with reasons, in ``sb3_in_place.py``.
"""

import argparse
import ast
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import stable_baselines3

SCRIPTS = Path(__file__).resolve().parent


def download_tests(package: str, version: str, folder: Path) -> Path:
    """
    :param package: the name of a package
    :param version: which version of it
    :param folder: where to put what is downloaded
    :return: a folder with ``tests`` and the settings of pytest, and without the package's code
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", package, "--dest", str(folder), f"{package}=={version}"]
    # imitation's version is otherwise told by a Git history, which the distribution lacks
    if subprocess.run(command, env={**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION": version}).returncode:
        sys.exit(f"The source distribution of {package} {version} can't be downloaded, see above.")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as distribution:
        wanted = [member for member in distribution if re.match(r"[^/]+/(tests/|pyproject\.toml$)", member.name)]
        distribution.extractall(folder, wanted, filter="data")
    root = folder / wanted[0].name.split("/")[0] if wanted else folder
    if not (root / "tests").is_dir():
        sys.exit(f"{archive.name} holds no tests: {package} {version} publishes them elsewhere.")
    return root


def missing_packages(path: Path) -> list[str]:
    """
    :param path: a file of Python code
    :return: the packages that it imports and that are not installed
    """
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="options of pytest, after --")
    options = parser.parse_args().options
    version = stable_baselines3.__version__
    with tempfile.TemporaryDirectory() as folder:
        root = download_tests("stable-baselines3", version, Path(folder))
        files = []
        for path in sorted((root / "tests").glob("test_*.py")):
            if not re.search(r"\b(SAC|DQN)\b", path.read_text()):
                continue
            missing = missing_packages(path)
            if missing:
                print(f"Left out: {path.name} needs {', '.join(missing)}, which is not installed.")
            else:
                files.append(f"tests/{path.name}")
        print(f"The tests of Stable-Baselines3 {version}, with IQLearn in the place of SAC and DQN:", flush=True)
        paths = [str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "pytest", "-p", "sb3_in_place", "-p", "no:cacheprovider", "-q", "-rxX", "--tb=short"]
        sys.exit(subprocess.run([*command, *options, *files], cwd=root, env=environ).returncode)


if __name__ == "__main__":
    main()
