"""Reading the archive in a folder. What is in it may have been written by anybody, so nothing is taken on trust."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

from chat._archive_folder import INSERT, SLICE, connect, damaged, has_form, make_form, rows_of
from chat._archive_lines import DAMAGED, archived_lines
from chat._arguments import name_of
from chat._errors import InvalidArgumentError
from chat._keys import decode_text
from chat._messages import is_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

__all__ = ["Reader", "Slice"]

LARGEST = 80 * 1024 * 1024  # bytes of a slice, packed or not: a message has at most 64 MiB
MOST = 2 * SLICE  # bytes of a slice of several messages, unpacked, with its line ends


class Slice(NamedTuple):
    """Messages of one channel that one hand-over kept.

    Attributes:
        path: of the file.
        last: id of the newest.
        packed: the log entries, compressed.
        epoch: of the shard's ids.
        kept_ms: when it was handed over, by the clock of that host.
    """

    path: Path
    last: int
    packed: bytes
    epoch: str
    kept_ms: int

    def entries(self) -> list[bytes]:
        """Return the log entries, oldest first.

        Raises:
            InvalidArgumentError: the slice is damaged.
        """
        try:
            lines = _unpacked(self.packed).split(b"\n")
        except zlib.error:
            lines = []
        if not 0 < len(lines) <= self.last < 2**53 or not all(map(is_entry, lines)):
            raise damaged(self.path, "a slice is not as it was written")
        return lines


def _unpacked(packed: bytes) -> bytes:
    """Return what is in a slice; of more than its writer puts into one, only a single large message is unpacked."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(packed, MOST)
    if not unpacker.eof and b"\n" not in text:
        text += unpacker.decompress(unpacker.unconsumed_tail, LARGEST)
    if not unpacker.eof or (len(text) > MOST and b"\n" in text):
        raise zlib.error
    return text


class Reader:
    """The files of an archive, opened for reading.

    Raises:
        InvalidArgumentError: there are none, or one is damaged or not an archive.
    """

    def __init__(self, folder: Path) -> None:
        self._files: list[tuple[Path, sqlite3.Connection]] = []
        with ExitStack() as opened:
            for path in sorted(folder.glob("????-??-*.sqlite3")):
                try:
                    db = opened.enter_context(closing(connect(path, "rw" if _writable(path) else "ro")))
                    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
                    db.execute("PRAGMA query_only = ON")
                    if has_form(db, path):
                        self._files.append((path, db))
                except (OSError, sqlite3.Error) as error:
                    raise damaged(path, error) from error
            for path in sorted(folder.glob("????-??-??/shard-*.jsonl.gz")):
                self._files.append((path, opened.enter_context(closing(_converted(path)))))
            if not self._files:
                message = f"no archive in {folder}, must be a folder that CHAT_ARCHIVE named"
                raise InvalidArgumentError(message)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def channels(self) -> list[bytes]:
        """Return the names of all channels, sorted."""
        names = set()
        for path, name in self._rows((bytes,), "SELECT DISTINCT channel FROM slice"):
            try:
                names.add(name_of("channel name", decode_text(name)))
            except ValueError as error:
                raise damaged(path, error) from error
        return sorted(names)

    def slices(self, channel: bytes) -> list[Slice]:
        """Return what was kept of a channel, newest ids first."""
        wanted = "SELECT last, entries, epoch, kept_ms FROM slice JOIN handover ON number = handover WHERE channel = ?"
        found = self._rows((int, bytes, str, int), wanted, channel)
        return sorted((Slice(*row) for row in found), key=lambda slice_: slice_.last, reverse=True)

    def _rows(self, types: tuple[type, ...], wanted: str, *values: bytes) -> Iterator[Any]:
        """Yield the rows of every file, each after the path of its file."""
        for path, db in self._files:
            try:
                for row in db.execute(wanted, values):
                    if tuple(map(type, row)) != types:  # SQLite itself takes any value in any column
                        raise damaged(path, "a row of it is not as it was written")
                    yield (path, *row)
            except sqlite3.Error as error:
                raise damaged(path, error) from error


def _writable(path: Path) -> bool:
    """Return whether SQLite may roll back what a killed writer left; it refuses to read such a file otherwise."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _converted(path: Path) -> sqlite3.Connection:
    """Return a temporary database with the messages of a file of version 1.0.0, which did not note their epoch."""
    db = sqlite3.connect("", isolation_level=None)
    db.execute("BEGIN")
    make_form(db)
    db.execute("INSERT INTO handover VALUES (1, '', '', 0)")
    try:
        for channel, message in archived_lines(path):
            db.executemany(INSERT, ((*row, 1) for row in rows_of(channel, (message,), "")))
    except (*DAMAGED, zlib.error, sqlite3.Error) as error:
        db.close()
        raise damaged(path, error) from error
    db.execute("COMMIT")
    return db
