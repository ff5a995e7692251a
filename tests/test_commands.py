"""``python -m sb3_iq``: every command of the package is listed, and nothing else."""

import importlib.util
import re
from pathlib import Path

import sb3_iq
from sb3_iq.__main__ import COMMANDS, main

ROOT = Path(sb3_iq.__file__).parent


def test_lists_the_commands(capsys):
    assert main([]) == 0
    assert re.findall(r"python -m sb3_iq\.(\w+)", capsys.readouterr().out) == list(COMMANDS)
    assert all(importlib.util.find_spec(f"sb3_iq.{name}") for name in COMMANDS)
    modules = [path for path in ROOT.rglob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    assert main(["train"]) == 2 and "train" in capsys.readouterr().err
    names = {path.parent.name if path.stem == "__main__" else path.stem for path in modules}
    # A comparison starts its workers itself
    assert names - {"sb3_iq", "worker"} == set(COMMANDS)
