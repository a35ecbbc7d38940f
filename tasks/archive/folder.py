"""The archive in a folder: SQLite files, and how they are written."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import zlib
from contextlib import closing
from hashlib import blake2b
from socket import gethostname
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from chat import ChatError, InvalidArgumentError
from chat.store.entries import encode_entry
from chat.store.keys import encode_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from chat import Message

__all__ = ["INSERT", "SLICE", "Folder", "connect", "damaged", "has_form", "make_form", "rows_of"]

# A hand-over is one transaction. A slice is what it has of one channel, about 1 MB at most: log entries as in Redis,
# one a line, compressed, with ids `first` to `last`. A hand-over that is repeated replaces its slices: `digest`, of the
# epoch and the lines, tells them from other messages that were given the same ids, as after a failover.
FORM = (
    "CREATE TABLE handover (number INTEGER PRIMARY KEY, run TEXT, epoch TEXT, kept_ms INTEGER)",
    "CREATE TABLE slice (channel BLOB, last INTEGER, first INTEGER, digest BLOB, entries BLOB, handover INTEGER)",
    "CREATE UNIQUE INDEX slice_ids ON slice (channel, last, digest)",
    "CREATE INDEX slice_handover ON slice (handover)",
    "CREATE INDEX handover_run ON handover (run)",
)
INSERT = "INSERT OR REPLACE INTO slice VALUES (?, ?, ?, ?, ?, ?)"
VERSION = 1  # of FORM, as SQLite's `user_version`
SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names another one, as no writer of ours does
SLICE = 1_000_000  # bytes of a slice, or one message
BUSY_TIMEOUT = 10.0  # seconds to wait for another writer, less than the lease of a sweep


class Folder:
    """``<folder>/<month>-<host>.sqlite3``: the hand-overs of a month, so no two hosts write to one file.

    A writer that is killed leaves a journal beside the file; the next process that opens it rolls back with that.
    """

    one_by_one = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(
        self,
        messages: Mapping[str, tuple[Message, ...]],
        *,
        epoch: str = "",
        run: str = "",
    ) -> dict[str, Exception]:
        """Keep messages, of all channels or, where that fails, of none."""
        now = time.time()
        path = self._file(now)
        rows: list[tuple[Any, ...]] = []
        failed: dict[str, Exception] = {}
        for channel, of_channel in messages.items():
            try:
                rows += rows_of(channel, of_channel, epoch)
            except ValueError as error:  # something else wrote a message that no check could return
                failed[channel] = error
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(connect(path, "rwc")) as db, db:
                _begin(db, path)
                columns = "INSERT INTO handover (run, epoch, kept_ms) VALUES (?, ?, ?)"
                number = db.execute(columns, (run, epoch, int(now * 1000))).lastrowid
                db.executemany(INSERT, ((*row, number) for row in rows))
        except (OSError, ChatError) as error:
            return dict.fromkeys(messages, error)
        except sqlite3.Error as error:
            return dict.fromkeys(messages, OSError(f"{path}: {error}"))
        return failed

    def try_to_write(self) -> None:
        """Make the folder, write a file there that nobody sees, and begin to write into the one of this month, if any.

        Raises:
            OSError: one of these cannot be written.
            InvalidArgumentError: the file is no archive.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path) as file:
            file.write(b"x")
        path = self._file(time.time())
        if not os.path.lexists(path):
            return
        try:
            with closing(connect(path, "rw")) as db:
                _begin(db, path)  # which a file that can only be read allows as well
                db.execute("INSERT INTO handover DEFAULT VALUES")
                db.execute("ROLLBACK")
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:  # then a sweep is writing
                message = f"{path}: {error}; it and its journal must belong to the user of the worker"
                raise OSError(message) from error

    def _file(self, now: float) -> Path:
        host = re.sub(r"[^A-Za-z0-9.-]", "_", gethostname())
        return self.path / f"{time.strftime('%Y-%m', time.gmtime(now))}-{host}.sqlite3"


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file; `mode` is SQLite's: ``ro``, ``rw``, or ``rwc`` to make it.

    Raises:
        InvalidArgumentError: SQLite would write to, or delete, a file elsewhere.
    """
    for beside in ("", "-journal", "-wal", "-shm"):
        file = path.with_name(path.name + beside)
        if os.path.lexists(file) and not S_ISREG(file.lstat().st_mode):
            raise damaged(path, f"{file.name} is no regular file: copy it")
        if beside == "-journal" and _ends_with(file, SUPER_JOURNAL):
            raise damaged(path, f"{file.name} names another file, which reading would delete: read a copy without it")
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)


def _ends_with(file: Path, end: bytes) -> bool:
    try:
        with file.open("rb") as opened:
            opened.seek(-min(len(end), opened.seek(0, os.SEEK_END)), os.SEEK_END)
            return opened.read() == end
    except FileNotFoundError:
        return False


def _begin(db: sqlite3.Connection, path: Path) -> None:
    """Begin to write: what is committed survives a power cut."""
    db.execute("PRAGMA journal_mode = TRUNCATE")
    db.execute("PRAGMA synchronous = FULL")
    if not path.stat().st_size:
        path.chmod(0o600)  # of a new file, before its journal is made alike
        if os.geteuid() == 0:  # the workers, which have the folder, are to write into it too
            folder = path.parent.stat()
            os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)
    db.execute("BEGIN IMMEDIATE")
    if not has_form(db, path):
        make_form(db)


def make_form(db: sqlite3.Connection) -> None:
    """Make the tables of an archive."""
    for statement in (*FORM, f"PRAGMA user_version = {VERSION}"):
        db.execute(statement)


def has_form(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether a file has the tables of an archive, False where it is empty.

    Raises:
        InvalidArgumentError: it has others.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    found = tuple(sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"))
    if (version, found) not in ((0, ()), (VERSION, FORM)):
        raise damaged(path, "its tables are not those of an archive of this version")
    return bool(found)


def rows_of(channel: str, messages: Iterable[Message], epoch: str) -> Iterator[tuple[Any, ...]]:
    """Yield what `INSERT` takes for the slices of a channel, but for their hand-over.

    Raises:
        ValueError: a message is none that can be sent.
    """
    entries: list[bytes] = []
    last = size = 0
    for message in messages:
        entry = encode_entry(message)
        if entries and size + len(entry) > SLICE:
            yield _row(channel, last, entries, epoch)
            entries, size = [], 0
        entries.append(entry)
        last, size = message.id, size + len(entry)
    yield _row(channel, last, entries, epoch)


def _row(channel: str, last: int, entries: list[bytes], epoch: str) -> tuple[Any, ...]:
    first, text = last - len(entries) + 1, b"\n".join(entries)
    digest = blake2b(epoch.encode() + b"\n" + text, digest_size=16).digest()
    return encode_text(channel), last, first, digest, zlib.compress(text)


def damaged(path: Path, reason: object) -> InvalidArgumentError:
    """Return the error of a file that cannot be read."""
    if getattr(reason, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
        reason = "its writer was killed, and undoing what that began needs writing: copy the folder, and read the copy"
    return InvalidArgumentError(f"{path} cannot be read as an archive: {reason}")
