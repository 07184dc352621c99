"""Build script that adds ``configs/`` to the wheel as ``clipmapper/configs``; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """The build step, which also copies the configs."""

    def run(self) -> None:
        """Build the packages and copy the configs; an editable install reads them from the checkout instead."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "clipmapper" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
