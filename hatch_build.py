"""The build of the wheel: the packages are written under one root, and that's what is packed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class OneRoot(BuildHookInterface[Any]):
    """Called by hatchling, by the name of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises ValueError for an editable install: one root and the folders of a clone can't be the same files."""
        if version == "editable":
            raise ValueError(
                "stillflow can't be installed with --editable: work in the clone, where `flows`, `tasks` and `llms` are"
                " imported from its folder, or install it with: pip install ."
            )
        sys.path.insert(0, self.root)
        from deployments.one_root import ROOT, write_package

        self._written = tempfile.TemporaryDirectory()
        folder = Path(self._written.name, ROOT)
        write_package(Path(self.root), folder)
        build_data["force_include"][str(folder)] = ROOT

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._written.cleanup()
