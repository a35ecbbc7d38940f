"""Functions of the user's that a setting names: importing and calling them, and describing what they raise."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Any

from chat import SettingsError

__all__ = ["Hook", "described", "function_at", "hook_at"]

Hook = Callable[[str, "tuple[str, ...] | None"], object]

LONGEST_ERROR = 500  # characters of an error's text that are kept


class FunctionExitError(RuntimeError):
    """Raised when a function of the user's called ``sys.exit()``."""


def function_at(name: str, where: str) -> Callable[..., Any]:
    """Return the function ``module:function`` of a setting.

    Raises:
        SettingsError: there is no such function.
    """
    module, _, attribute = where.partition(":")
    _add_working_folder()
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


def _add_working_folder() -> None:
    """Let modules of the working folder be imported, as last: the installed ``celery`` does not look there."""
    with suppress(OSError):  # it was deleted
        if (folder := str(Path.cwd())) not in sys.path:
            sys.path.append(folder)


def hook_at(where: str) -> Hook | None:
    """Return the function that ``CHAT_ON_EXPIRE`` names.

    Raises:
        SettingsError: there is no such function.
    """
    return function_at("CHAT_ON_EXPIRE", where) if where else None


def _signal_handlers() -> set[Any]:
    """Return the code of the signal handlers; looked up before a call, since a handler may remove itself."""
    return {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {None}


def _raised_in(code: set[Any], error: BaseException) -> bool:
    """Whether a signal handler raised the error, as in a process that is told to stop: that ends the run."""
    return any(frame.f_code in code for frame, _ in walk_tb(error.__traceback__))


def described(error: BaseException) -> str:
    """Return an error with its class in at most `LONGEST_ERROR` characters; it may be of any class of the user's."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a text that cannot be had must not end the sweep
        text = "its text cannot be read"
    text = f"{type(error).__name__}: {text}"
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}..."
