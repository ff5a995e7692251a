"""Checks what pip chose: ``pip install --dry-run --report report.json ...``, then this with the report."""

import argparse
import json
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("report", type=Path, help="pip's report")
parser.add_argument("requirements", type=Requirement, nargs="+", help="what must be among the packages: imitation~=1.0.1")
args = parser.parse_args()

metadata = [package["metadata"] for package in json.loads(args.report.read_text())["install"]]
chosen = {canonicalize_name(package["name"]): package["version"] for package in metadata}
for requirement in args.requirements:
    version = chosen.get(canonicalize_name(requirement.name))
    assert version is not None and version in requirement.specifier, f"{requirement} expected, pip chose {version}"
    print(f"{requirement.name} {version}")
print(f"and {len(chosen) - len(args.requirements)} more packages")
