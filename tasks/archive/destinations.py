"""The archive as a sweep sees it: a folder, or a function of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tasks.archive.folder import Folder
from tasks.functions import function_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chat import Message

__all__ = ["Archive", "archive_at", "portions"]


class Archive(Protocol):
    """A destination for messages that are about to be removed.

    Attributes:
        one_by_one: whether a call gets one channel only, because it may be slow.
    """

    one_by_one: bool

    def keep(
        self, messages: Mapping[str, tuple[Message, ...]], *, epoch: str = "", run: str = ""
    ) -> dict[str, Exception]:
        """Keep messages of some channels of a shard; return those that could not be kept, each with its error.

        Args:
            messages: by channel, with ids that follow one another.
            epoch: epoch of the shard; in another epoch the same ids mean other messages.
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
    """Yield the messages that each call of ``keep`` gets."""
    if archive.one_by_one:
        yield from ({channel: of_channel} for channel, of_channel in messages.items())
    elif messages:
        yield dict(messages)


class _Function:
    """A function of the user's, called once for each channel: ``function(channel, messages)``."""

    one_by_one = True

    def __init__(self, where: str) -> None:
        self._function = function_at("CHAT_ARCHIVE", where)

    def keep(
        self,
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
