"""Where removed messages are kept: a folder, or a function of the user's."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Protocol

from chat import SettingsError
from tasks.archive.folder import Folder
from tasks.cleaning.tally import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chat import Message

__all__ = ["Archive", "Folder", "Hook", "archive_at", "hook_at", "portions"]

Hook = Callable[[str, "tuple[str, ...] | None"], object]


class FunctionExitError(RuntimeError):
    """Raised when a function of the user's called ``sys.exit()``."""


class Archive(Protocol):
    """Takes what is about to be removed."""

    def keep(
        self, shard: int, messages: Mapping[str, tuple[Message, ...]], *, epoch: str = "", run: str = ""
    ) -> dict[str, Exception]:
        """Keep messages of some channels of a shard; return those that could not be kept, each with its error.

        Args:
            shard: its number.
            messages: by channel, with ids that follow one another.
            epoch: of the shard; in another epoch the same ids mean other messages.
            run: id of the run that is about to remove them.
        """


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
    handlers = _signal_handlers()
    try:
        found = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module of the user's raises when it is imported
        if _raised_in(handlers, error):
            raise
        message = f"{name} is {where!r}, which cannot be imported here: {described(error)}"
        raise SettingsError(message) from error
    if not callable(found):
        message = f"{name} is {where!r}, must be a function"
        raise SettingsError(message)
    function: Callable[..., Any] = found

    def call(channel: str, gone: Any) -> object:
        handlers = _signal_handlers()
        try:
            return function(channel, gone)
        except SystemExit as error:  # it fails that one call, and not the process
            if _raised_in(handlers, error):
                raise
            raise FunctionExitError(described(error)) from error

    return call


def _signal_handlers() -> set[Any]:
    """Return the code of the signal handlers; looked up before a call, since a handler may remove itself."""
    return {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {None}


def _raised_in(code: set[Any], error: BaseException) -> bool:
    """Whether a signal handler raised the error, as in a process that is told to stop: that ends the run."""
    return any(frame.f_code in code for frame, _ in walk_tb(error.__traceback__))


class _Function:
    """A function of the user's, called once for each channel: ``function(channel, messages)``."""

    def __init__(self, where: str) -> None:
        self._function = _function_at("CHAT_ARCHIVE", where)

    def keep(
        self,
        shard: int,  # noqa: ARG002
        messages: Mapping[str, tuple[Message, ...]],
        *,
        epoch: str = "",  # noqa: ARG002
        run: str = "",  # noqa: ARG002
    ) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for channel, of_channel in messages.items():
            try:
                self._function(channel, of_channel)
            except Exception as error:  # noqa: BLE001  what it could not keep stays, whatever it was
                failed[channel] = error
        return failed
