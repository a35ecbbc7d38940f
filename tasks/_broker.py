"""The broker connection of worker and beat: it comes back soon after Redis does, and no task in hand is lost."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811  ours replaces it under its name
from kombu.connection import Connection as KombuConnection

__all__ = ["AMQP", "Connection"]

LONGEST_PAUSE = 4  # seconds between two attempts to connect; kombu's grow to 30


class Lasting:
    """Mixed into a transport: it does not forget its address when its connection is closed.

    kombu forgets it first and then acknowledges the task that was running: AttributeError, "'NoneType' object has
    no attribute 'hostname'", and the worker exits. With the address the channel connects anew and acknowledges.
    """

    _client: KombuConnection | None = None

    @property
    def client(self) -> KombuConnection | None:
        """The connection this transport was made by."""
        return self._client

    @client.setter
    def client(self, client: KombuConnection | None) -> None:
        self._client = client or self._client


@cache
def lasting(transport: type) -> type:
    """Return a transport class with `Lasting` mixed in."""
    return type(f"Lasting{transport.__name__}", (Lasting, transport), {})


class Connection(KombuConnection):
    """kombu's connection, with shorter pauses while the broker is away and a transport that lasts."""

    def get_transport_cls(self) -> type:
        """Return the class of the broker's transport."""
        return lasting(super().get_transport_cls())  # type: ignore[no-untyped-call]

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Try until connected, as kombu does, but every few seconds."""
        return super().ensure_connection(*args, **{"interval_max": LONGEST_PAUSE} | kwargs)  # type: ignore[no-untyped-call]


class AMQP(CeleryAMQP):  # type: ignore[misc]  # celery ships no types
    """What Celery makes its connections from: an argument of its app."""

    Connection = Connection
