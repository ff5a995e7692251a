"""Where a row comes from: versions of packages, and the commit of a checkout."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("sb3-iq", "stable-baselines3", "gymnasium", "torch", "numpy", "imitation", "mujoco", "box2d")
CHECKOUT = Path(__file__).parents[2]


def versions() -> dict[str, str]:
    """
    :return: of Python, and of those packages that are installed
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """
    :return: the commit of the checkout that this package is used from, marked where tracked code differs from it; None without
        a checkout, or without git
    """
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        commit = _git("describe", "--always", "--abbrev=12", "--exclude=*").stdout.strip()
        # A suite of benchmarks appends to its own results as it runs
        changed = commit and _git("diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results").returncode != 0
    except OSError:
        return None
    return f"{commit}-dirty" if changed else commit or None


def _git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=CHECKOUT, check=False)
