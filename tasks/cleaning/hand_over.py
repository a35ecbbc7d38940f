"""The hand-over of a run: messages to the archive before they are removed, names to the hook afterwards.

Both may be functions of the user's. One that fails or is slow must not harm the cleaning.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from chat.store.entries import UNREADABLE, decode_slice
from chat.store.keys import decode_name, decode_text, encode_text
from tasks.archive.destinations import Archive, archive_at, portions
from tasks.cleaning.calls import BATCH
from tasks.functions import Hook, hook_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chat import Message
    from tasks.cleaning.rules import Rule
    from tasks.cleaning.run import Run
    from tasks.settings import Settings

__all__ = ["HandOver"]

# Seconds of calls after which the lease is renewed, what was handed over is removed, and the time budget is looked at:
# all this happens within so long and one call.
HAND_OVER_SECONDS = 1.0


class HandOver:
    """The archive and the hook of one run, where its rules have use for them.

    Args:
        settings: settings that name the archive and the hook.
        rules: rules of the sweep.
        run: the run; its tally gets what was handed over, and the errors.
        ends: exceptions that end the run, whoever raises them.

    Raises:
        SettingsError: there is no such function.
    """

    def __init__(self, settings: Settings, rules: list[Rule], run: Run, ends: tuple[type[Exception], ...]) -> None:
        self.archive: Archive | None = archive_at(settings.archive) if any(rule.read for rule in rules) else None
        self._hook: Hook | None = hook_at(settings.on_expire) if any(rule.announced for rule in rules) else None
        self._run, self._tally, self._ends = run, run.tally, ends
        if self._hook:
            run.batch = 1  # until it proves quick

    def keep(self, names: list[bytes], slices: Sequence[list[Any]], *, epoch: str, run: str) -> dict[bytes, int]:
        """Give the archive what is about to go; return the id up to which it has each channel, -1 for not at all.

        Where that takes long, the channels that are left wait for their turn.
        """
        end = time.monotonic() + HAND_OVER_SECONDS
        handed = {name: -1 if entries else last for name, (last, *entries) in zip(names, slices, strict=True)}
        if not self.archive:
            return handed
        for portion in portions(self.archive, self._decoded(names, slices)):
            failed = self.archive.keep(portion, epoch=epoch, run=run)
            for channel, messages in portion.items():
                name = encode_text(channel)
                if error := failed.get(channel):
                    self._raise_if_final(error)
                    self._tally.refuse(name, error, ": not archived")
                else:
                    handed[name] = messages[-1].id
                    self._tally.archived += len(messages)
            if time.monotonic() >= end:
                break
        return handed

    def announce(self, names: list[bytes], of_names: Sequence[Any]) -> None:
        """Call the hook for what was removed.

        A batch is announced before the next one is removed, so a slow hook gets batches of one channel, and a quick
        one soon full ones.

        Args:
            names: names of the channels.
            of_names: for each name 1 (channel removed), a list of clients, or 0.
        """
        if not self._hook:
            return
        end = time.monotonic() + HAND_OVER_SECONDS
        for name, gone in zip(names, of_names, strict=False):
            if gone:
                clients = None if gone == 1 else tuple(map(decode_name, gone))
                try:
                    self._hook(decode_name(name), clients)
                except Exception as error:  # noqa: BLE001  a hook of the user's does not stop the cleaning
                    self._raise_if_final(error)
                    self._tally.fail(f"channel {decode_name(name)!r}: CHAT_ON_EXPIRE", error)
        self._run.batch = 1 if time.monotonic() >= end else min(2 * self._run.batch, BATCH)

    def _decoded(self, names: list[bytes], slices: Sequence[list[Any]]) -> dict[str, tuple[Message, ...]]:
        """Return the messages of the slices that have some; refuse what is none of the chat's."""
        decoded = {}
        for name, of_channel in zip(names, slices, strict=True):
            if of_channel[1:] and name not in self._tally.refused:
                try:
                    decoded[decode_text(name)] = decode_slice(*of_channel)
                except UNREADABLE as error:
                    self._tally.refuse(name, error, ": not archived")
        return decoded

    def _raise_if_final(self, error: Exception) -> None:
        """Raise an error of a function of the user's if it is one that ends the run."""
        if isinstance(error, self._ends):
            raise error
