"""A chat whose removed messages are kept in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab import Lab

if TYPE_CHECKING:
    from pathlib import Path

    from chat.store.nodes import Client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def archived(redis: Client, folder: Path) -> Lab:
    return Lab(redis, archive=str(folder), backlog=3, hard_backlog=0)
