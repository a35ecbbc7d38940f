"""The environment, and ``.env``."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values, find_dotenv
from dotenv.parser import parse_stream

from chat._errors import SettingsError

if TYPE_CHECKING:
    from dotenv.parser import Binding

__all__ = ["environment", "lines_of_file"]


def environment() -> dict[str, str]:
    """Return the environment, and what ``.env`` adds to it."""
    good = StringIO("".join(line.original.string for line in lines_of_file()[1] if not line.error))
    from_file = {name: value or "" for name, value in dotenv_values(stream=good).items()}
    return from_file | {k: v for k, v in os.environ.items() if v}


def lines_of_file() -> tuple[str, list[Binding]]:
    """Return the path of ``.env`` in this folder or the nearest above it, empty for none, and its statements.

    Raises:
        SettingsError: it cannot be read.
    """
    path = ""
    try:
        path = find_dotenv(usecwd=True)
        text = Path(path).read_text("utf-8") if path else ""
    except UnicodeDecodeError:
        message = f"{path} is no UTF-8, must be text in UTF-8: save it in that encoding"
        raise SettingsError(message) from None
    except OSError as error:
        message = f"{path} cannot be read, must be a file that this user may read: {error.strerror}"
        if not path:  # a working folder that was deleted, say
            message = f"the working folder cannot be searched for .env, must be one that exists: {error.strerror}"
        raise SettingsError(message) from None
    return path, list(parse_stream(StringIO(text)))
