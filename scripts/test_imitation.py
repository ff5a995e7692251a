"""
Runs the tests that the library imitation has of SQIL with IQLearnTrainer in its place (``make test-sb3``).

The tests are those of the installed version, from its source distribution. They are downloaded into a temporary folder, for
they are not part of this project. What can't apply is listed, with reasons, in ``imitation_in_place.py``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from test_sb3 import SCRIPTS, download_tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="options of pytest, after --")
    options = parser.parse_args().options
    with tempfile.TemporaryDirectory() as folder:
        root = download_tests("imitation", version("imitation"), Path(folder))
        paths = [str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "pytest", "-p", "imitation_in_place", "-q", "-rxX", "--tb=short"]
        command += ["-W", "ignore::UserWarning", *options, "tests/algorithms/test_sqil.py"]
        sys.exit(subprocess.run(command, cwd=root, env=environ).returncode)


if __name__ == "__main__":
    main()
