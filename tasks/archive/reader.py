"""Reading the archive in a folder. What is in it may have been written by anybody, so nothing is taken on trust."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from chat import InvalidArgumentError
from chat.store.arguments import at_least, name_of
from chat.store.entries import is_entry
from chat.store.keys import decode_text
from tasks.archive.folder import INSERT, SLICE, connect, damaged, has_form, make_form, rows_of
from tasks.archive.lines import DAMAGED, archived_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

__all__ = ["Reader", "Slice"]

LARGEST = 80 * 1024 * 1024  # bytes of a slice, packed or not: a message has at most 64 MiB
OPEN = 100  # files at a time; a process may open 1,024, as a rule
MOST = 2 * SLICE  # bytes of a slice of several messages, unpacked, with its line ends


class Slice(NamedTuple):
    """Messages of one channel that one hand-over kept.

    Attributes:
        path: path of the file.
        last: id of the newest message.
        packed: the log entries, compressed.
        epoch: epoch of the shard's ids.
        kept_ms: when the slice was handed over, by the clock of that host.
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
    """The files of an archive, a few of them open at a time: there may be one for each host and month.

    Raises:
        InvalidArgumentError: there are none, or one is damaged or not an archive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[Path, sqlite3.Connection] = {}
        self._files: defaultdict[bytes, list[Path]] = defaultdict(list)  # of each channel
        self._lines: list[Path] = []  # the folder, where it has files of version 1.0.0
        lines = sorted(folder.glob("????-??-??/shard-*.jsonl.gz"))
        with ExitStack() as failed:
            failed.callback(self._close)
            files = self._archives()
            if lines:
                self._opened[folder] = _converted(lines)
                self._lines.append(folder)
                files.append(folder)
            if not files:
                message = f"no archive in {folder}, must be a folder that CHAT_ARCHIVE named"
                raise InvalidArgumentError(message)
            for path in files:
                self._find_channels(path)
            failed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def channels(self) -> list[bytes]:
        """Return the names of all channels, sorted."""
        return sorted(self._files)

    def slices(self, channel: bytes, *, anew: bool = False) -> list[Slice]:
        """Return what was kept of a channel, newest ids first.

        Args:
            channel: its name.
            anew: whether to look into all files, also into those that came since: the channel may have been removed,
                by a sweep that goes on, after the archive was opened.
        """
        wanted = "SELECT last, entries, epoch, kept_ms FROM slice JOIN handover ON number = handover WHERE channel = ?"
        files = [*self._archives(), *self._lines] if anew else self._files.get(channel, [])
        found = [
            Slice(path, *row) for path in files for row in self._rows(path, (int, bytes, str, int), wanted, channel)
        ]
        return sorted(found, key=lambda slice_: slice_.last, reverse=True)

    def _archives(self) -> list[Path]:
        return [path for path in sorted(self._folder.glob("????-??-*.sqlite3")) if self._is_archive(path)]

    def _is_archive(self, path: Path) -> bool:
        try:
            return has_form(self._database(path), path)
        except sqlite3.Error as error:
            raise damaged(path, error) from error

    def _find_channels(self, path: Path) -> None:
        for (name,) in self._rows(path, (bytes,), "SELECT DISTINCT channel FROM slice"):
            try:
                name_of("channel name", decode_text(name))
            except ValueError as error:
                raise damaged(path, error) from error
            self._files[name].append(path)

    def _rows(self, path: Path, types: tuple[type, ...], wanted: str, *values: bytes) -> Iterator[Any]:
        """Yield the rows of a file."""
        try:
            for row in self._database(path).execute(wanted, values):
                if tuple(map(type, row)) != types:  # SQLite itself takes any value in any column
                    raise damaged(path, "a row of it is not as it was written")
                yield row
        except sqlite3.Error as error:
            raise damaged(path, error) from error

    def _database(self, path: Path) -> sqlite3.Connection:
        """Return a file's database, opened for reading; the one that was opened first is closed where many are."""
        if path not in self._opened:
            if len(self._opened) >= OPEN:
                oldest = next(one for one in self._opened if one != self._folder)  # which is no file, but in memory
                self._opened.pop(oldest).close()
            try:
                db = self._opened[path] = connect(path, "rw" if _writable(path) else "ro")
            except OSError as error:
                raise damaged(path, error) from error
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
            db.execute("PRAGMA query_only = ON")
        return self._opened[path]

    def _close(self) -> None:
        for db in self._opened.values():
            db.close()


def _writable(path: Path) -> bool:
    """Return whether SQLite may roll back what a killed writer left; it refuses to read such a file otherwise."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _converted(files: list[Path]) -> sqlite3.Connection:
    """Return a temporary database with the messages of files of version 1.0.0, which did not note their epoch."""
    db = sqlite3.connect("", isolation_level=None)
    db.execute("BEGIN")
    make_form(db)
    db.execute("INSERT INTO handover VALUES (1, '', '', 0)")
    for path in files:
        try:
            for channel, message in archived_lines(path):
                name_of("channel name", channel)
                at_least(1, "id", message.id)
                db.executemany(INSERT, ((*row, 1) for row in rows_of(channel, (message,), "")))
        except (*DAMAGED, zlib.error, sqlite3.Error) as error:
            db.close()
            raise damaged(path, error) from error
    db.execute("COMMIT")
    return db
