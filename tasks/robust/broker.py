"""The broker connection of worker and beat: no outage of Redis ends it for long, and no message in the queue."""

from __future__ import annotations

from functools import cache
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811  ours replaces it under its name
from celery.utils.log import get_logger
from kombu.connection import Connection as KombuConnection

from tasks.health import touch

__all__ = ["AMQP", "Connection"]

log = get_logger(__name__)

LONGEST_PAUSE = 4  # seconds between two attempts to connect; kombu's grow to 30


class Wary:
    """Mixed into a channel: what is no task message is dropped with one line, and the worker goes on.

    kombu and Celery take for granted that the queue holds what Celery put there. Anything else is an error that
    ends the worker, and some of it comes back to end the next one. There is no hook before that place.
    """

    qos: Any
    basic_reject: Any

    def _brpop_read(self, **options: Any) -> Any:
        before = set(self.qos._delivered)
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the channel's
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            for tag in set(self.qos._delivered) - before:
                self.basic_reject(tag, requeue=False)
            log.error("dropped what is no task message: %r", error)
            raise Empty from None


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
def robust(transport: Any) -> Any:
    """Return a Redis transport class with what is above mixed in."""
    channel = type(f"Wary{transport.Channel.__name__}", (Wary, transport.Channel), {})
    return type(f"Lasting{transport.__name__}", (Lasting, transport), {"Channel": channel})


class Connection(KombuConnection):
    """kombu's connection, with shorter pauses while the broker is away and a robust transport."""

    def get_transport_cls(self) -> Any:
        """Return the class of the broker's transport."""
        return robust(super().get_transport_cls())  # type: ignore[no-untyped-call]

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Try until connected, as kombu does, but every few seconds, and with signs of life."""
        callback = kwargs.pop("callback", None)

        def meanwhile() -> None:
            touch()
            if callback:
                callback()

        ours = {"interval_max": LONGEST_PAUSE, "callback": meanwhile}
        return super().ensure_connection(*args, **ours | kwargs)  # type: ignore[no-untyped-call]


class AMQP(CeleryAMQP):  # type: ignore[misc]  # celery ships no types
    """What Celery makes its connections from: an argument of its app."""

    Connection = Connection
