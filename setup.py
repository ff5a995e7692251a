"""
Metadata is in setup.cfg. Only editable installs need this file: they leave out data files, here RL Zoo's start-up files; and
they find packages by code, which type checkers do not run: those find ``sb3_iq`` by the path of the checkout.
"""

import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel


class EditableWheel(editable_wheel):
    def run(self):
        super().run()
        for wheel in Path(self.dist_dir).glob("sb3_iq-*editable*.whl"):
            with zipfile.ZipFile(wheel, "a") as archive:
                for name in {"sb3_iq_zoo.pth", "sb3_iq_zoo.start"} - set(archive.namelist()):
                    archive.write(Path("startup") / name, name)
                archive.writestr("sb3_iq_checkout.pth", f"{Path(__file__).parent.resolve()}\n")


setup(cmdclass={"editable_wheel": EditableWheel})
