"""The broker connection of worker and beat: it survives outages of Redis and invalid messages in the queue."""

from __future__ import annotations

from functools import cache
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811  ours has its name
from celery.utils.log import get_logger
from kombu.connection import Connection as KombuConnection

from chat.store.explain import tls_hint
from tasks.health import touch

__all__ = ["AMQP", "Connection"]

log = get_logger(__name__)

LONGEST_PAUSE = 4  # seconds between two attempts to connect; kombu's pauses grow to 30


class DropInvalidMessages:
    """Mixin for a channel: drop what is not a task message with one log line, and go on.

    kombu and Celery expect only their own messages in the queue. Anything else raises an error that ends the worker,
    and some of it is redelivered and ends the next worker too. Celery has no hook that runs before that.
    """

    qos: Any
    basic_reject: Any

    def _brpop_read(self, **options: Any) -> Any:
        before = set(self.qos._delivered)
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the channel has it
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            for tag in set(self.qos._delivered) - before:
                self.basic_reject(tag, requeue=False)
            log.error("dropped an invalid message: %r", error)
            raise Empty from None


class KeepBrokerAddress:
    """Mixin for a transport: keep the broker's address when the connection is closed.

    kombu drops the address first and acknowledges the running task afterwards. That raises AttributeError ("'NoneType'
    object has no attribute 'hostname'"), and the worker exits. With the address, the channel reconnects to acknowledge.
    """

    _client: KombuConnection | None = None

    @property
    def client(self) -> KombuConnection | None:
        """The connection that made this transport."""
        return self._client

    @client.setter
    def client(self, client: KombuConnection | None) -> None:
        self._client = client or self._client


@cache
def _robust(transport: Any) -> Any:
    """Return a Redis transport class with both mixins."""
    channel = type(f"Robust{transport.Channel.__name__}", (DropInvalidMessages, transport.Channel), {})
    return type(f"Robust{transport.__name__}", (KeepBrokerAddress, transport), {"Channel": channel})


class Connection(KombuConnection):
    """kombu's connection, with a robust transport and shorter pauses while the broker is away."""

    def get_transport_cls(self) -> Any:
        """Return the class of the broker's transport."""
        return _robust(super().get_transport_cls())  # type: ignore[no-untyped-call]

    def ensure_connection(self, errback: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Retry until connected, as kombu does, but every few seconds."""

        def failed(error: Exception, interval: float) -> None:
            if hint := tls_hint(error, self.as_uri()):
                error.args = (f"{str(error).rstrip('.')}: {hint}",)
            if errback:
                errback(error, interval)

        return super().ensure_connection(failed, *args, **{"interval_max": LONGEST_PAUSE} | kwargs)  # type: ignore[no-untyped-call]

    def _ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Touch the heartbeat file meanwhile; a publish whose connection was lost comes here directly."""
        callback = kwargs.pop("callback", None)

        def meanwhile() -> None:
            touch()
            if callback:
                callback()

        return super()._ensure_connection(*args, **kwargs | {"callback": meanwhile})  # type: ignore[no-untyped-call]


class AMQP(CeleryAMQP):  # type: ignore[misc]  # celery ships no types
    """The class that a Celery app takes as ``amqp=`` and makes its connections from."""

    Connection = Connection
