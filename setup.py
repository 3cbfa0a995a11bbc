"""What pyproject.toml cannot say of a build: the sweeps, which lie beside the packages, become a part of one.

An editable install needs none of this: there they are where they are.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SWEEPS = Path("sweeps")


class BuildWithSweeps(build_py):
    """Also copies the sweeps into the package that finds them (orchestrator/sweeps/bundled.py)."""

    def run(self) -> None:
        """Build."""
        super().run()
        for source, target in self._sweeps().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        """All files that the build reads, which a source distribution contains."""
        return [*super().get_source_files(), *map(str, SWEEPS.rglob("*.yaml"))]

    def get_output_mapping(self) -> dict[str, str]:
        """All files that the build writes, with their sources."""
        return {**super().get_output_mapping(), **{target: source for source, target in self._sweeps().items()}}

    def _sweeps(self) -> dict[str, str]:
        if self.editable_mode:
            return {}
        folder = Path(self.build_lib, "orchestrator", "sweeps", "bundled")
        return {str(file): str(folder / file.relative_to(SWEEPS)) for file in SWEEPS.rglob("*.yaml")}


setup(cmdclass={"build_py": BuildWithSweeps})
