"""Where removed messages are kept: a folder of JSON lines, or a function of the user's."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from chat._errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chat._messages import Message

__all__ = ["Archive", "Folder", "Hook", "archive_at", "hook_at", "portions", "read"]

Hook = Callable[[str, "tuple[str, ...] | None"], object]


class Archive(Protocol):
    """Takes what is about to be removed."""

    def keep(self, shard: int, messages: Mapping[str, tuple[Message, ...]]) -> dict[str, Exception]:
        """Keep messages of some channels of a shard; return those that could not be kept, each with its error."""


def archive_at(destination: str) -> Archive | None:
    """Return the archive that ``CHAT_ARCHIVE`` names.

    Raises:
        SettingsError: there is no such function.
    """
    if not destination:
        return None
    return Folder(Path(destination)) if destination.startswith("/") else _Function(destination)


def portions(archive: Archive, messages: Mapping[str, tuple[Message, ...]]) -> Iterator[dict[str, tuple[Message, ...]]]:
    """Yield what one call of ``keep`` takes: all, but one channel for a function of the user's, which may be slow."""
    if isinstance(archive, _Function):
        yield from ({channel: of_channel} for channel, of_channel in messages.items())
    elif messages:
        yield dict(messages)


def hook_at(where: str) -> Hook | None:
    """Return the function that ``CHAT_ON_EXPIRE`` names.

    Raises:
        SettingsError: there is no such function.
    """
    return _function_at("CHAT_ON_EXPIRE", where) if where else None


def _function_at(name: str, where: str) -> Callable[..., Any]:
    module, _, attribute = where.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a module of the user's raises when it is imported
        message = f"{name} is {where!r}, which cannot be imported here: {type(error).__name__}: {error}"
        raise SettingsError(message) from error
    if not callable(found):
        message = f"{name} is {where!r}, must be a function"
        raise SettingsError(message)
    function: Callable[..., Any] = found
    return function


class _Function:
    """A function of the user's, called once for each channel: ``function(channel, messages)``."""

    def __init__(self, where: str) -> None:
        self._function = _function_at("CHAT_ARCHIVE", where)

    def keep(self, shard: int, messages: Mapping[str, tuple[Message, ...]]) -> dict[str, Exception]:  # noqa: ARG002
        failed: dict[str, Exception] = {}
        for channel, of_channel in messages.items():
            try:
                self._function(channel, of_channel)
            except Exception as error:  # noqa: BLE001  what it could not keep stays, whatever it was
                failed[channel] = error
        return failed


class Folder:
    """``<folder>/<day>/shard-<number>.jsonl.gz``: a line for each message, under the UTC day it was sent.

    Each hand-over is one gzip member, appended whole or not at all: before it, the length of the file is written
    aside, and removed after it. Who opens the file and finds that, cuts off what a killed process left behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, shard: int, messages: Mapping[str, tuple[Message, ...]]) -> dict[str, Exception]:
        """Keep messages, of all channels or, where that fails, of none."""
        days: dict[str, list[bytes]] = defaultdict(list)
        for channel, of_channel in messages.items():
            for message in of_channel:
                days[f"{message.sent_at:%Y-%m-%d}"].append(_line(channel, message))
        try:
            for day, lines in days.items():
                _append(self.path / day / f"shard-{shard:05}.jsonl.gz", b"".join(lines))
        except OSError as error:
            return dict.fromkeys(messages, error)
        return {}

    def files(self) -> list[Path]:
        """Return the files, newest day first."""
        return sorted(self.path.glob("????-??-??/shard-*.jsonl.gz"), reverse=True)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of a file: channel, id, sent_at and body of each."""
    with path.open("rb") as file, _locked(path):
        _mend(path)
        with gzip.open(file) as lines:
            for line in lines:
                yield json.loads(line)


def _line(channel: str, message: Message) -> bytes:
    sent_at = message.sent_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    row = {"channel": channel, "id": message.id, "sent_at": sent_at, "body": message.body}
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        _mend(path)
        length = path.stat().st_size if path.exists() else 0
        _write(_aside(path), str(length).encode())
        with _private(path, "ab") as file:
            file.write(gzip.compress(lines, mtime=0))
            _sync(file)
        _aside(path).unlink()
        _sync_folder(path.parent)


def _mend(path: Path) -> None:
    """Cut off what was not written to its end."""
    if _aside(path).exists():
        if path.exists():
            os.truncate(path, int(_aside(path).read_text()))
        _aside(path).unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes away: both sweeps that remove messages may work on one shard."""
    with _private(path.with_suffix(".lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    draft = path.with_suffix(".draft")
    with _private(draft, "wb") as file:
        file.write(content)
        _sync(file)
    draft.replace(path)
    _sync_folder(path.parent)


def _aside(path: Path) -> Path:
    return path.with_suffix(".length")


def _private(path: Path, mode: str) -> Any:
    """Open a file that nobody else may read."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
