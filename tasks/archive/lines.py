"""The archive's form of version 1.0.0: gzipped JSON lines, a folder for each day. It is read, never written."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING

from chat import Message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DAMAGED", "archived_lines"]

LONGEST = 512 * 1024 * 1024  # bytes of a line: the longest body, 64 MiB, with every character escaped
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def archived_lines(path: Path) -> Iterator[tuple[str, Message]]:
    """Yield channel and message of each line of a file; for one that is damaged it raises an error of `DAMAGED`."""
    length = path.with_suffix(".length")  # where a writer was killed: bytes that were written whole
    whole = path.read_bytes()[: int(length.read_text()) if length.exists() else None]
    with gzip.open(BytesIO(whole)) as lines:
        while line := lines.readline(LONGEST):
            row = json.loads(line)
            yield row["channel"], Message(row["id"], datetime.fromisoformat(row["sent_at"]), row["body"])
