"""The broker connection of worker and beat: back soon after Redis is."""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP as CeleryAMQP  # noqa: N811  ours replaces it under its name
from kombu.connection import Connection as KombuConnection

__all__ = ["AMQP", "Connection"]

LONGEST_PAUSE = 4  # seconds between two attempts; kombu's grow to 30


class Connection(KombuConnection):
    """kombu's connection, with shorter pauses while the broker is away."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Try until connected, as kombu does, every 2 to 4 seconds."""
        return super().ensure_connection(  # type: ignore[no-untyped-call]
            *args, **{"interval_max": LONGEST_PAUSE} | kwargs
        )


class AMQP(CeleryAMQP):  # type: ignore[misc]
    """What Celery makes its connections from: an argument of its app."""

    Connection = Connection
