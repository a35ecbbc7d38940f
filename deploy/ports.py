"""Ports of loopback: what a setting names, whether it is free, whether something listens. Used by supervise.py."""

import socket
from collections.abc import Mapping

from chat import SettingsError

LOOPBACK = "127.0.0.1"
LAST_PORT = 65535


def free_port(name: str, text: str) -> int:
    """Return the port that a setting names, if it is one and is free."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LAST_PORT)) and 0 < int(text) <= LAST_PORT):
        message = f"{name} is {text!r}, must be a whole number from 1 to {LAST_PORT}"
        raise SettingsError(message)
    refuse_taken(int(text), name)
    return int(text)


def refuse_taken(port: int, setting: str) -> None:
    """Say that a port cannot be used; the programs' own word for it is a stack trace."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            message = f"port {port} cannot be used ({error.strerror}): set {setting} to a free one"
            raise OSError(message) from None


def refuse_equal(ports: Mapping[str, int]) -> None:
    """Say that two programs would listen on the same port: each is free until the first of them is started.

    Args:
        ports: by the name of the setting that each comes from.
    """
    names: dict[int, str] = {}
    for name, port in ports.items():
        if port in names:
            message = f"{names[port]} and {name} are both {port}, must differ: change one of them"
            raise SettingsError(message)
        names[port] = name


def listens(port: int) -> bool:
    """Return whether something takes connections at a port."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
