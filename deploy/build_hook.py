"""Hatchling's build hook: a wheel holds one package, ``pollchat``, whatever the checkout's modules are called.

A checkout has the modules ``chat``, ``tasks`` and ``celeryconfig``. In site-packages they would replace a project's
modules of the same name, or be replaced by them: ``tasks`` and ``celeryconfig`` are what Celery's documentation calls
everybody's. So the files of ``chat`` become ``pollchat``, with ``pollchat.tasks`` and ``pollchat.celeryconfig`` below.
Editable installations keep the checkout's names.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSTALLED = {"chat": "pollchat", "tasks": "pollchat.tasks", "celeryconfig": "pollchat.celeryconfig"}
FILES = ("chat/**/*", "tasks/**/*", "celeryconfig.py")
SHIPPED = {".lua", ".py", ".typed"}
# An import, indented or not, and a command in a help text or a message: `celery -A tasks`, `python -m chat`.
NAMED = re.compile(r"(^[ >]*from (?=\S+ import )|-[Am] )(chat|tasks|celeryconfig)\b", re.MULTILINE)


class BuildHook(BuildHookInterface[Any]):
    """Puts renamed copies of the modules into a standard wheel, and renames its commands and plug-ins."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy before the wheel is built."""
        if version != "standard":
            return
        self._copies = TemporaryDirectory()
        root, copies = Path(self.root), Path(self._copies.name)
        for file in chain.from_iterable(map(root.glob, FILES)):
            if file.suffix in SHIPPED:
                copy = copies / rename(file.relative_to(root).as_posix(), separator="/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                text = NAMED.sub(lambda found: found[1] + INSTALLED[found[2]], file.read_text("utf-8"))
                copy.write_text(text, "utf-8")
        build_data["force_include"][str(copies / "pollchat")] = "pollchat"
        for group in (self.metadata.core.scripts, *self.metadata.core.entry_points.values()):
            group.update({name: rename(function) for name, function in group.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  hatchling's
        """Remove the copies."""
        if version == "standard":
            self._copies.cleanup()


def rename(name: str, separator: str = ".") -> str:
    """Return what a name or a path that begins with a module is in the wheel."""
    return re.sub(r"^\w+", lambda found: INSTALLED[found[0]].replace(".", separator), name)
