"""Puts ``configs/`` into the wheel, as ``clipmapper/configs``; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the configs of the checkout, which an editable install reads where they are."""

    def run(self) -> None:
        """Build the packages, then add the configs."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "clipmapper" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
